"""Decoders of model files: heads of GGUF files, pieces, packages, hidden states; all hostile until proven."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from dllm_protocol.gguf.head import Head, Tensor, Value, encode_head, text, truths, u32
from dllm_protocol.gguf.kinds import ARRAY, F32
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import (
    PIECE_BLOCK,
    PIECE_HEADER,
    PIECE_PROBE,
    Manifest,
    Piece,
    piece_root,
    version_for,
)
from dllm_protocol.model_package.chunk import is_tied, pieces_of_chunk, plan_chunk
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import check_piece, examine, plan_pieces
from dllm_protocol.model_package.probe import ProbeShape, plan_probe, probe_shape
from dllm_protocol.model_package.torrent import SPAN_BYTES_MIN, PieceHashes, check_spans
from dllm_protocol.pricing import RowPrices
from local_worker.engine import hidden
from local_worker.engine.messages import DecodeRequest
from local_worker.packages.package import (
    load_manifest,
    load_package,
    piece_path,
    read_piece_head,
    verify_piece,
)
from local_worker.packages.probe_piece import read_probe
from local_worker.packages.sources import open_model
from local_worker.packages.spans import read_spans, spans_path, store_spans
from local_worker.swarm.swarm import known_spans
from tests.fuzz.decoder import Decoder
from tests.fuzz.node import through_file

LAYERS, N_EMBD, ROWS = 3, 8, 4
_HEAD_BYTES = 9


def small_model() -> tuple[dict[str, Value], list[Tensor]]:
    """Metadata and tensors of the smallest model that can be cut."""
    tokens = b"".join(len(one).to_bytes(8, "little") + one for one in (b"<s>", b"</s>", b"a", b"b"))
    head = (8).to_bytes(4, "little") + ROWS.to_bytes(8, "little")
    metadata = {
        "general.architecture": text("gemma3"),
        "gemma3.attention.head_count_kv": Value(
            ARRAY, (4).to_bytes(4, "little") + LAYERS.to_bytes(8, "little") + bytes((1, 0, 0, 0)) * LAYERS
        ),
        "gemma3.attention.sliding_window": u32(16),
        "gemma3.block_count": u32(LAYERS),
        "gemma3.context_length": u32(64),
        "gemma3.embedding_length": u32(N_EMBD),
        "tokenizer.ggml.tokens": Value(ARRAY, head + tokens),
        "tokenizer.ggml.some": truths([True, False]),
    }
    tensors = [Tensor("token_embd.weight", (N_EMBD, ROWS), F32), Tensor("output_norm.weight", (N_EMBD,), F32)]
    tensors += [Tensor(f"blk.{layer}.attn_norm.weight", (N_EMBD,), F32) for layer in range(LAYERS)]
    return metadata, tensors


def small_file() -> bytes:
    """The same as a file; all weights are zero."""
    metadata, tensors = small_model()
    raw, head = encode_head(metadata, tensors)
    return raw + bytes(head.size_bytes - len(raw))


@cache
def _pieces() -> dict[tuple[int, int], bytes]:
    metadata, tensors = small_model()
    plans = plan_pieces(examine(metadata, tensors), metadata, tensors)
    return {
        (one.kind, one.index): one.raw_head + bytes(one.head.size_bytes - len(one.raw_head)) for one in plans
    }


def _head(data: bytes) -> Head:
    return read_head(BytesIO(data).read, len(data))


def _read_head(data: bytes) -> None:
    """Read, examine, cut, and plan every chunk of two: what a stranger's file can make us do."""
    head = _head(data)
    again, _ = encode_head(head.metadata, head.tensors)
    if read_head(BytesIO(again).read, 1 << 62).metadata != dict(head.metadata):
        raise AssertionError("a head is read again as another")
    model = examine(head.metadata, head.tensors)
    plans = plan_pieces(model, head.metadata, head.tensors)
    heads = {(plan.kind, plan.index): plan.head for plan in plans}
    for plan in plans:
        check_piece(plan.head, plan.raw_head, plan.kind, plan.index)
    for cut in range(1, model.layers):
        plan_chunk(heads, model.layers, 0, cut)
        plan_chunk(heads, model.layers, cut, model.layers)


def _header_piece(data: bytes) -> None:
    """A header piece whose hash fits: whoever forges one may have registered the manifest as well."""
    heads = {key: _head(raw) for key, raw in _pieces().items()}
    heads[PIECE_HEADER, 0] = header = _head(data)
    check_piece(header, data[: header.data_start], PIECE_HEADER, 0)
    for first, end in ((0, 1), (1, 2), (2, LAYERS), (0, LAYERS)):
        if set(pieces_of_chunk(LAYERS, first, end, is_tied=is_tied(header))) <= heads.keys():
            plan_chunk(heads, LAYERS, first, end)


def _piece(data: bytes) -> None:
    """A block's piece in a package whose manifest names it."""
    with tempfile.TemporaryDirectory() as name:
        piece = Piece(PIECE_BLOCK, 1, len(data), piece_root([data]))
        path = piece_path(Path(name), piece)
        path.parent.mkdir()
        path.write_bytes(data)
        read_piece_head(Path(name), piece)
        verify_piece(Path(name), piece)


def probe_piece() -> bytes:
    """A probe of the smallest model: each row's logits descend, each row's tokens count up."""
    plan = plan_probe("gemma3", ProbeShape(LAYERS, N_EMBD, ROWS, has_sides=False))
    data = bytearray(plan.raw_head + bytes(plan.head.size_bytes - len(plan.raw_head)))
    for tensor in plan.head.tensors:
        width, rows = tensor.shape
        values = np.tile(np.arange(width), (rows, 1))
        raw = values.astype("<i4") if tensor.name.endswith("ids") else (-values).astype("<f4")
        start = plan.head.data_start + tensor.offset
        data[start : start + tensor.size_bytes] = raw.tobytes()
    return bytes(data)


def _probe_head(data: bytes) -> None:
    head = _head(data)
    check_piece(head, data[: head.data_start], PIECE_PROBE, 0)
    shape = probe_shape(head)
    if plan_probe("gemma3", shape).head.tensors != head.tensors:
        raise AssertionError("a probe's head is planned again as another")


def _probe(data: bytes) -> None:
    """A probe whose hash fits: whoever forges one may have registered the manifest as well."""
    raws = {(PIECE_HEADER, 0): _pieces()[PIECE_HEADER, 0], (PIECE_PROBE, 0): data}
    with tempfile.TemporaryDirectory() as name:
        pieces = tuple(Piece(*key, len(raw), piece_root([raw])) for key, raw in raws.items())
        for piece, raw in zip(pieces, raws.values(), strict=True):
            path = piece_path(Path(name), piece)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(raw)
        for first, end in ((0, 1), (1, 2), (2, LAYERS)):
            read_probe(Path(name), _manifest_of(pieces), first, end, context_rows=256)


def _manifest_of(pieces: tuple[Piece, ...]) -> Manifest:
    prices, version = RowPrices(1, 1, 1, 1), version_for(pieces)
    return Manifest(version, "m", "gemma3", LAYERS, 64, bytes(32), "plain", "x", prices, pieces)


def _spans(data: bytes) -> None:
    """Hashes of spans that a stranger sent, or that lie in a package; what is kept is read again."""
    piece, _ = _spanned()
    check_spans(piece, data)
    with tempfile.TemporaryDirectory() as name:
        store_spans(Path(name), piece, data)
        if read_spans(Path(name), piece) != data:
            raise AssertionError("hashes of spans are read again as others")


def _stored_spans(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = spans_path(Path(name), _spanned()[0])
        path.parent.mkdir()
        path.write_bytes(data)
        if read_spans(Path(name), _spanned()[0]) is None:
            raise PieceRefused("these are no spans of the piece")


def _told_spans(data: bytes) -> None:
    """What libtorrent keeps of a piece's tree, whatever a peer made it keep."""
    known = known_spans({b"trees": [{b"mask": data[:15], b"hashes": data[15:]}]}, _spanned()[0])
    if known:
        check_spans(_spanned()[0], known)


@cache
def _spanned() -> tuple[Piece, bytes]:
    """A piece of three spans, and their hashes."""
    data = bytes(2 * SPAN_BYTES_MIN + 5)
    hashes = PieceHashes(len(data))
    hashes.update(data)
    return Piece(PIECE_BLOCK, 0, len(data), hashes.root()), hashes.spans()


def _manifest() -> bytes:
    return _manifest_of(
        tuple(Piece(*key, len(raw), piece_root([raw])) for key, raw in _pieces().items())
    ).encode()


def _opened(path: Path) -> None:
    with open_model(path) as source:
        for tensor in source.tensors:
            for _ in source.data(tensor.name):
                pass


def decoders() -> list[Decoder]:
    """Heads, pieces, packages, hidden states."""
    rows = np.ones((2, 4), np.float32)
    forward = hidden.forward_frame(DecodeRequest(1, 0, 0, 4, True, rows), 1)[_HEAD_BYTES:]
    leaving = hidden.hidden_frame(1, True, 2, 0, rows)[_HEAD_BYTES:]
    table: list[tuple[str, Callable[[bytes], object], bytes]] = [
        ("dllm_protocol.gguf.reading.read_head", _read_head, small_file()),
        ("dllm_protocol.model_package.chunk.plan_chunk", _header_piece, _pieces()[PIECE_HEADER, 0]),
        ("local_worker.packages.package.read_piece_head", _piece, _pieces()[PIECE_BLOCK, 1]),
        ("dllm_protocol.model_package.probe.probe_shape", _probe_head, probe_piece()),
        ("local_worker.packages.probe_piece.read_probe", _probe, probe_piece()),
        (
            "local_worker.packages.package.load_package",
            through_file(lambda path: load_package(path.parent), "manifest"),
            _manifest(),
        ),
        ("dllm_protocol.model_package.torrent.check_spans", _spans, _spanned()[1]),
        (
            "local_worker.packages.spans.read_spans",
            _stored_spans,
            _spanned()[1],
        ),
        (
            "local_worker.swarm.swarm.known_spans",
            _told_spans,
            b"111111" + b"0" * 9 + bytes(96) + _spanned()[1],
        ),
        ("local_worker.packages.package.load_manifest", through_file(load_manifest, "wanted"), _manifest()),
        ("local_worker.packages.sources.open_model", through_file(_opened, "m.gguf"), small_file()),
        (
            "local_worker.engine.hidden.read_forward",
            lambda data: hidden.read_forward(1, data),
            forward,
        ),
        ("local_worker.engine.hidden.read_hidden", hidden.read_hidden, leaving),
    ]
    return [Decoder(name, "models", read, (example,)) for name, read, example in table]
