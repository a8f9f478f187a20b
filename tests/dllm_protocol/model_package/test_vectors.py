"""The recorded package: whoever cuts this file into these pieces makes the same models."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from typing import Any

import gguf
import numpy as np
import pytest

from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import (
    PIECE_PROBE,
    PROBED_VERSION,
    Manifest,
    is_cut_in_order,
    manifest_hash,
    piece_root,
    probe_of,
)
from dllm_protocol.model_package.layout import check_piece
from dllm_protocol.model_package.probe import probe_shape
from tests.dllm_protocol.test_model_manifest import reference_root
from tests.vectors.record_packages import FILE, examples

RECORDED: dict[str, Any] = json.loads(FILE.read_text("utf-8"))

pytestmark = pytest.mark.conformance("own-golden-vectors")


def test_nothing_differs_from_the_record() -> None:
    assert examples() == RECORDED


def test_recorded_pieces_are_those_of_the_recorded_manifest() -> None:
    manifest = Manifest.decode(bytes.fromhex(RECORDED["manifest"]))
    assert manifest_hash(manifest).hex() == RECORDED["manifest hash"]
    assert len(manifest.pieces) == len(RECORDED["pieces"])
    for piece, told in zip(manifest.pieces, RECORDED["pieces"], strict=True):
        raw = bytes.fromhex(told["bytes"])
        leaves = [hashlib.sha256(raw[at : at + 16384]).digest() for at in range(0, len(raw), 16384)]
        assert reference_root(leaves) == piece.root == bytes.fromhex(told["root"])
        head = read_head(BytesIO(raw).read, len(raw))
        check_piece(head, raw[: head.data_start], piece.kind, piece.index)
        assert head.size_bytes == len(raw) == piece.size_bytes


def test_another_reader_finds_every_weight_in_the_recorded_pieces(tmp_path: Any) -> None:
    """The reader that comes with llama.cpp's converters."""
    (tmp_path / "file.gguf").write_bytes(bytes.fromhex(RECORDED["file"]))
    whole = {one.name: one for one in gguf.GGUFReader(tmp_path / "file.gguf").tensors}
    found = {}
    for number, told in enumerate(RECORDED["pieces"]):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(bytes.fromhex(told["bytes"]))
        found |= {one.name: one for one in gguf.GGUFReader(path).tensors}
    assert found.keys() == whole.keys()
    for name, one in whole.items():
        assert found[name].tensor_type == one.tensor_type
        assert np.array_equal(found[name].data, one.data)


def test_recorded_probes_are_pieces_and_another_reader_finds_their_numbers(tmp_path: Any) -> None:
    for number, told in enumerate(RECORDED["probes"]):
        raw = bytes.fromhex(told["bytes"])
        assert piece_root([raw]).hex() == told["root"]
        head = read_head(BytesIO(raw).read, len(raw))
        check_piece(head, raw[: head.data_start], PIECE_PROBE, 0)
        shape = probe_shape(head)
        assert (shape.layers, shape.n_embd, shape.logits, shape.has_sides) == (2, 4, 3, number == 1)
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(raw)
        found = {one.name: one.data for one in gguf.GGUFReader(path).tensors}
        assert len(found) == 3 * (number + 1)
        assert np.array_equal(found["probe.hidden.1"][1], [1, 0.75, 0.5, 0.25])
        assert np.array_equal(found["probe.logit_ids"][2], [2, 0, 1])


def test_the_recorded_manifest_with_a_probe_is_of_the_second_version() -> None:
    manifest = Manifest.decode(bytes.fromhex(RECORDED["manifest with the first probe"]))
    assert (manifest.version, is_cut_in_order(manifest)) == (PROBED_VERSION, True)
    assert manifest_hash(manifest).hex() == RECORDED["manifest hash with the first probe"]
    piece = probe_of(manifest)
    assert piece is not None and piece.root.hex() == RECORDED["probes"][0]["root"]


def test_recorded_tokens_follow_from_the_size_of_the_vocabulary() -> None:
    """Reckoned here from the definition: a tagged hash of two numbers, modulo the vocabulary's size."""
    for size, tokens in RECORDED["probe tokens by size of the vocabulary"].items():
        for row, token in enumerate(tokens):
            data = b"DLLM/v1/probe-token\0" + int(size).to_bytes(4, "big") + row.to_bytes(4, "big")
            assert token == int(hashlib.sha256(data).hexdigest(), 16) % int(size)
        assert len(tokens) == 8
