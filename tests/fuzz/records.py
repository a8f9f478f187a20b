"""Every canonical record of every package, found by looking, each with an example."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dllm_protocol import encoding
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.encoding import Record
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.receipt import Receipt
from dllm_protocol.transaction import Transaction
from dllm_protocol.vocabulary import Vocabulary, check_spelling, vocabulary_hash
from dllm_protocol.voucher import SignedAck, SignedVoucher
from tests.architecture.sources import PACKAGES
from tests.fuzz.decoder import Decoder, canonical
from tests.fuzz.protocol import golden_records

ROOT = Path(__file__).parents[2]


@cache
def record_types() -> tuple[type[Record], ...]:
    """Every record type, by module and name; only modules that define one are imported."""
    found: dict[str, type[Record]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "\n@record\n" not in path.read_text("utf-8"):
                continue
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, Record) and value.__wire__:
                    found[f"{value.__module__}.{value.__name__}"] = value
    return tuple(found[name] for name in sorted(found))


def example(record_type: type[Record]) -> Record:
    """A value of a record: small, and with every field set."""
    return record_type(**{field.name: _value(field.kind) for field in record_type.__wire__})


def _value(kind: Any) -> Any:
    if isinstance(kind, encoding.Unsigned):
        return max(kind.minimum, min(kind.maximum, 300))
    if isinstance(kind, encoding.ByteString):
        return b"\x05" * max(kind.minimum, min(kind.maximum, 4))
    if isinstance(kind, encoding.Text):
        return "a" * max(kind.minimum, min(kind.maximum, 3))
    if isinstance(kind, encoding.Nested | encoding.Optional):
        return example(kind.type)
    if isinstance(kind, encoding.ListOf):
        return (_value(kind.element),) * max(kind.minimum, min(kind.maximum, 2))
    if isinstance(kind, encoding.OneOf):
        return example(next(iter(kind.by_number.values())))
    raise TypeError(f"no example for {kind!r}")


def _use_vocabulary(vocabulary: Vocabulary) -> None:
    vocabulary_hash(vocabulary)
    check_spelling(vocabulary, [min(2, len(vocabulary.pieces) - 1)], vocabulary.pieces[-1].text)


USES: dict[type[Record], Callable[[Any], object]] = {
    Transaction: lambda one: (one.signature_fits, one.by_chat_key),
    SignedBundle: lambda one: (one.signature_fits, one.bundle.chain_id, one.bundle.badge),
    Genesis: chain_id_of,
    SignedVoucher: lambda one: one.signed_by(b"\x01" * 32),
    SignedAck: lambda one: one.signed_by(b"\x01" * 32),
    Receipt: lambda one: one.signed_by(b"\x01" * 32),
    Vocabulary: _use_vocabulary,
}
"""What is done with a record of a stranger before anything else is known of it."""


def decoders() -> list[Decoder]:
    """One for each record."""
    made = []
    for one in record_types():
        golden = golden_records().get(one.__name__, ())
        examples = (*golden, example(one).encode())
        read = canonical(one.decode, USES.get(one))
        made.append(Decoder(f"{one.__module__}.{one.__name__}.decode", "records", read, examples))
    return made
