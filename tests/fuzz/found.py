"""What in the five packages looks like a decoder, by its name, and what only looks so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import PACKAGES, ROOT

DECODER = re.compile(
    r"^(?!_)(?:(decode|parse|unpack|load_json|request_from)(_|$)|from_(json|query|bytes|text|rfc3339)$|read_.|\w*_from_json$)"
)

NO_DECODERS = {
    # Parts of decoders that the table has whole.
    "dllm_protocol.encoding.OneOf.unpack": "every record with alternatives",
    "dllm_protocol.encoding.Record.decode": "every record",
    "dllm_protocol.kinds.Encodable.decode": "an interface",
    "dllm_protocol.kinds.Kind.unpack": "an interface",
    "dllm_protocol.kinds.Unsigned.unpack": "every record",
    "dllm_protocol.kinds.ByteString.unpack": "every record",
    "dllm_protocol.kinds.Text.unpack": "every record",
    "dllm_protocol.kinds.Nested.unpack": "every record",
    "dllm_protocol.kinds.Optional.unpack": "every record",
    "dllm_protocol.kinds.ListOf.unpack": "every record",
    # They read no bytes.
    "dllm_protocol.jsonrpc.errors.parse_error": "makes an error",
    "dllm_protocol.session.client.ClientLeg.decode": "asks for rows",
    "dllm_chat.session.speculation.Speculation.decode_next": "asks for rows",
    "local_worker.engine.sequence.Sequence.decode": "asks for rows",
    "local_worker.engine.llama.LlamaModel.decode": "runs the model",
    "local_worker.engine.messages.decode_frame": "writes a frame",
    "local_worker.engine.interface.ServingSequence.decode": "an interface",
    "local_worker.engine.words_only.WordsOnly.decode": "refuses to run a model",
    "local_worker.remote_engine.sequence.RemoteSequence.decode": "asks for rows",
    "local_worker.layer_range.parse_layers": "reads a flag of the person who starts the worker",
    "local_worker.slice_flags.parse_prices": "reads a flag of the person who starts the worker",
    "dllm_chat.session.decoder.Decoder.decode": "an interface",
    "dllm_chat.session.decoder.Decoder.decode_next": "an interface",
    "dllm_chat.session.line.Line.decode": "asks for rows",
    "dllm_chat.session.line.Line.decode_next": "asks for rows",
    "local_worker.card_memory.read_free_bytes": "reads what a process of this program says; tested beside it",
    "local_worker.engine.run_ahead.Decoder.decode": "an interface to the model",
    "local_worker.engine.run_ahead.RunAhead.decode": "runs the model",
    "local_worker.engine.scheduler.Decoder.decode": "an interface to the model",
    "local_worker.engine.scheduler.Scheduler.decode_ahead": "runs the model",
    "dllm_chat.session.leg.OpenLeg.decode": "asks for rows",
    "dllm_chat.session.leg.OpenLeg.decode_next": "asks for rows",
    "dllm_chat.dispatch.market.read_market": "asks the light node",
    "light_node.proxy.token.read_or_make_token": "reads what this program wrote",
    "dllm_chat.devnet.supervisor.Order.from_text": "reads what this program wrote",
    "dllm_chat.wallet.password.read_new_password": "asks the person",
}
"""Functions whose names look like a decoder's, and why the table has no row of their own."""


def decoder_names() -> list[str]:
    """``package.module.Class.function`` of everything public that is called like a decoder."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found += decoders_in(path.read_text("utf-8"), module_of(path.relative_to(ROOT)))
    return found


def module_of(path: Path) -> str:
    """Dotted name of a module."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def decoders_in(source: str, module: str) -> Iterator[str]:
    """The names in one module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and DECODER.search(node.name):
            yield f"{module}.{node.name}"
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and DECODER.search(inner.name):
                    yield f"{module}.{node.name}.{inner.name}"
