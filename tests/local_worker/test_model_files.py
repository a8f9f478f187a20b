"""A file's root, its manifest, and what does not fit the registry's promise."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.model_manifest import BLOCK_BYTES, PIECE_FILE, Manifest, piece_root
from dllm_protocol.vocabulary import CONTROL, NORMAL, TokenPiece, Vocabulary
from local_worker.engine.messages import EngineInfo
from local_worker.errors import ModelMismatch
from local_worker.model_files import check_model, file_piece, make_manifest, name_from_file

INFO = EngineInfo("llama", 2, 64, 3, 4096, 512, 4, 1, 1000, 2000, 3000, 0, 1, 2, True, 0, 2, 2)
WORDS = Vocabulary(
    1, (TokenPiece(b"<s>", CONTROL), TokenPiece(b"a", NORMAL), TokenPiece(b"b", NORMAL)), 0, 0, 1, 0
)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 70 * BLOCK_BYTES + 3])
def test_the_streamed_root_is_the_root(tmp_path: Path, size: int) -> None:
    data = hashlib.shake_256(str(size).encode()).digest(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    piece = file_piece(path)
    whole = piece_root(data[start : start + BLOCK_BYTES] for start in range(0, size, BLOCK_BYTES))
    assert (piece.kind, piece.size_bytes, piece.root) == (PIECE_FILE, size, whole)


def manifest_of(tmp_path: Path) -> Manifest:
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    return make_manifest(file_piece(path), INFO, WORDS, name="m", chat_template="plain")


def test_a_file_is_what_its_own_manifest_says(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    assert (manifest.layers, manifest.context_rows) == (2, 4096)
    check_model(manifest, file_piece(tmp_path / "file"), INFO, WORDS)


def test_each_difference_is_named_with_both_values(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    piece = file_piece(tmp_path / "file")
    with pytest.raises(ModelMismatch, match="size is 9, m promises 7"):
        check_model(manifest, replace(piece, size_bytes=9), INFO, WORDS)
    with pytest.raises(ModelMismatch, match="root is 00"):
        check_model(manifest, replace(piece, root=bytes(32)), INFO, WORDS)
    with pytest.raises(ModelMismatch, match="layers is 3, m promises 2"):
        check_model(manifest, piece, replace(INFO, layers=3), WORDS)
    with pytest.raises(ModelMismatch, match="vocabulary"):
        check_model(manifest, piece, INFO, replace(WORDS, adds_space=1))
    with pytest.raises(ModelMismatch, match="2 pieces"):
        check_model(replace(manifest, pieces=(piece, piece)), piece, INFO, WORDS)


def test_a_name_that_the_registry_does_not_take_is_refused(tmp_path: Path) -> None:
    (piece,) = manifest_of(tmp_path).pieces
    with pytest.raises(MalformedBytes):
        make_manifest(piece, INFO, WORDS, name="Über Modell", chat_template="plain")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("guide.gguf", "guide"),
        ("Mistral-7B-Instruct-v0.3.Q4_K_M.gguf", "mistral-7b-instruct-v0.3.q4-k-m"),
        ("Ünï çode.gguf", "n-ode"),
        ("???.gguf", "model"),
        ("x" * 300 + ".gguf", "x" * 48),
    ],
)
def test_names_out_of_file_names(file: str, name: str) -> None:
    assert name_from_file(Path(file)) == name
