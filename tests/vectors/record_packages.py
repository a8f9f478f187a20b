"""Records `packages.json`: a model's file, and the pieces that every implementation must cut it into.

``python -m tests.vectors.record_packages`` writes it anew; a change of the file is a change of a format.
"""

from __future__ import annotations

import hashlib
import json
import struct
from io import BytesIO
from pathlib import Path

from dllm_protocol.gguf.head import Tensor, Value, encode_head, padded, text, u32
from dllm_protocol.gguf.kinds import ARRAY, F32, STRING
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import Manifest, Piece, manifest_hash, piece_root, version_for
from dllm_protocol.model_package.chunk import plan_chunk
from dllm_protocol.model_package.layout import examine, piece_name, plan_pieces
from dllm_protocol.model_package.probe import PROBE_ROWS, ProbeShape, plan_probe, probe_tokens
from dllm_protocol.pricing import RowPrices
from dllm_protocol.vocabulary import vocabulary_hash
from tests.vectors.record_formats import VOCABULARY

FILE = Path(__file__).with_name("packages.json")
LAYERS, N_EMBD, ROWS = 2, 4, 3
Q8_0 = 8
CHUNKS = ((0, 1), (1, 2), (0, 2))
PROBES = (("probe", False), ("probe with two sides", True))
VOCABULARIES = (3, 512, 32_000, 151_936)


def model_file() -> bytes:
    """A model of two blocks with an output matrix of its own, and tensors in no order.

    Its weights are bytes that count up; they are carried, not computed with.
    """
    words = [b"<s>", b"</s>", b" hello"]
    array = struct.pack("<IQ", STRING, len(words)) + b"".join(struct.pack("<Q", len(w)) + w for w in words)
    metadata = {
        "tokenizer.ggml.tokens": Value(ARRAY, array),
        "general.architecture": text("llama"),
        "llama.embedding_length": u32(N_EMBD),
        "llama.context_length": u32(64),
        "llama.block_count": u32(LAYERS),
        "general.alignment": u32(32),
    }
    tensors = [
        Tensor("output_norm.weight", (N_EMBD,), F32),
        Tensor("blk.1.attn_norm.weight", (N_EMBD,), F32),
        Tensor("blk.1.ffn_up.weight", (32, 1), Q8_0),
        Tensor("rope_freqs.weight", (2,), F32),
        Tensor("blk.0.ffn_up.weight", (32, 1), Q8_0),
        Tensor("blk.0.attn_norm.weight", (N_EMBD,), F32),
        Tensor("token_embd.weight", (N_EMBD, ROWS), F32),
        Tensor("output.weight", (N_EMBD, ROWS), F32),
    ]
    raw, head = encode_head(metadata, tensors)
    for number, tensor in enumerate(head.tensors):
        values = bytes((number * 16 + n) % 256 for n in range(tensor.size_bytes))
        raw += values + bytes(padded(tensor.size_bytes) - tensor.size_bytes)
    return raw


def cut(data: bytes) -> list[tuple[str, Piece, bytes]]:
    """The pieces of a file, each with its name and its bytes."""
    head = read_head(BytesIO(data).read, len(data))
    model = examine(head.metadata, head.tensors)
    places = {one.name: data[head.data_start + one.offset :][: one.size_bytes] for one in head.tensors}
    found = []
    for plan in plan_pieces(model, head.metadata, head.tensors):
        raw = plan.raw_head
        for tensor in plan.head.tensors:
            raw += places[tensor.name] + bytes(padded(tensor.size_bytes) - tensor.size_bytes)
        piece = Piece(plan.kind, plan.index, len(raw), piece_root([raw]))
        found.append((piece_name(plan.kind, plan.index), piece, raw))
    return found


def chunk_files(pieces: list[tuple[str, Piece, bytes]]) -> list[dict[str, object]]:
    """Each chunk's file, by its hash: not a format, but unlikely to change unnoticed."""
    raws = {(piece.kind, piece.index): raw for _, piece, raw in pieces}
    heads = {key: read_head(BytesIO(raw).read, len(raw)) for key, raw in raws.items()}
    made: list[dict[str, object]] = []
    for first, end in CHUNKS:
        plan = plan_chunk(heads, LAYERS, first, end)
        data = plan.raw_head
        for part in plan.parts:
            whole = raws[part.piece] if part.piece else bytes(part.size_bytes)
            data += whole[len(whole) - part.size_bytes :]
        made.append({"layers": f"{first}:{end}", "sha256": hashlib.sha256(data).hexdigest()})
    return made


def probe(*, has_sides: bool) -> tuple[Piece, bytes]:
    """A probe's piece for such a model; its numbers count up and are not what llama.cpp gives, but have their order."""
    plan = plan_probe("llama", ProbeShape(LAYERS, N_EMBD, ROWS, has_sides))
    raw = plan.raw_head
    for tensor in plan.head.tensors:
        for row in range(PROBE_ROWS):
            if tensor.name.endswith("logit_ids"):
                raw += struct.pack(f"<{ROWS}i", *((row + n) % ROWS for n in range(ROWS)))
            else:
                raw += struct.pack(f"<{tensor.shape[0]}f", *(row - n / 4 for n in range(tensor.shape[0])))
        raw += bytes(padded(len(raw)) - len(raw))
    return Piece(plan.kind, plan.index, len(raw), piece_root([raw])), raw


def examples() -> dict[str, object]:
    """Everything in `packages.json`."""
    data = model_file()
    pieces = cut(data)
    manifest = manifest_of(tuple(piece for _, piece, _ in pieces))
    probed = [(name, *probe(has_sides=has_sides)) for name, has_sides in PROBES]
    with_probe = manifest_of((*manifest.pieces, probed[0][1]))
    return {
        "description": "A model's file and the pieces that it is cut into; all bytes are hex.",
        "file": data.hex(),
        "pieces": told(pieces),
        "manifest": manifest.encode().hex(),
        "manifest hash": manifest_hash(manifest).hex(),
        "chunks": chunk_files(pieces),
        "probes": told(probed),
        "manifest with the first probe": with_probe.encode().hex(),
        "manifest hash with the first probe": manifest_hash(with_probe).hex(),
        "probe tokens by size of the vocabulary": {str(size): probe_tokens(size) for size in VOCABULARIES},
    }


def told(pieces: list[tuple[str, Piece, bytes]]) -> list[dict[str, object]]:
    """Each piece as the file has it."""
    return [
        {"name": name, "root": piece.root.hex(), "size_bytes": piece.size_bytes, "bytes": raw.hex()}
        for name, piece, raw in pieces
    ]


def manifest_of(pieces: tuple[Piece, ...]) -> Manifest:
    """The manifest of these pieces."""
    return Manifest(
        version=version_for(pieces),
        name="vector-1",
        architecture="llama",
        layers=LAYERS,
        context_rows=64,
        vocabulary_hash=vocabulary_hash(VOCABULARY),
        chat_template="plain",
        licence="Apache-2.0",
        reserve_prices=RowPrices(400, 4000, 4000, 400),
        pieces=pieces,
    )


if __name__ == "__main__":
    FILE.write_text(json.dumps(examples(), indent=1, ensure_ascii=False) + "\n", "utf-8")
