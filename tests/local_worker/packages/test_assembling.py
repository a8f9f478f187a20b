"""Assembling: what a chunk's file is, and what never becomes one."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.errors import DllmError, MalformedBytes, VerificationFailed
from dllm_protocol.gguf.head import Head
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import (
    PIECE_BLOCK,
    PIECE_EMBEDDING,
    PIECE_HEADER,
    PIECE_OUTPUT,
    Manifest,
    Piece,
)
from dllm_protocol.model_package.errors import LayersRefused, ModelShapeRefused, PieceRefused
from local_worker.model_files import file_piece
from local_worker.packages.assembling import assemble
from local_worker.packages.errors import DiskFull, OutputRefused, PackageNotFound
from local_worker.packages.package import piece_path
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("assembling")
    return folder / "package", packed(write_model(folder / "m.gguf", SHAPES["llama"]), folder / "package")


@pytest.fixture
def package(made: tuple[Path, Manifest], tmp_path: Path) -> tuple[Path, Manifest]:
    """One's own, to be damaged."""
    return Path(shutil.copytree(made[0], tmp_path / "package")), made[1]


def head_of(path: Path) -> Head:
    with path.open("rb") as stream:
        return read_head(stream.read, path.stat().st_size)


def piece_of(manifest: Manifest, kind: int, index: int = 0) -> Piece:
    return next(one for one in manifest.pieces if (one.kind, one.index) == (kind, index))


def test_chunks_have_only_what_they_need(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    """No chunk carries both matrices, none needs a piece of a block that is not its own."""
    folder, manifest = package
    needed = {
        (0, 2): {(PIECE_HEADER, 0), (PIECE_EMBEDDING, 0), (PIECE_BLOCK, 0), (PIECE_BLOCK, 1)},
        (1, 3): {(PIECE_HEADER, 0), (PIECE_BLOCK, 1), (PIECE_BLOCK, 2)},
        (3, 4): {(PIECE_HEADER, 0), (PIECE_BLOCK, 3), (PIECE_OUTPUT, 0)},
    }
    for (first, end), pieces in needed.items():
        part = tmp_path / f"part-{first}"
        (part / "pieces").mkdir(parents=True)
        for kind, index in pieces:
            piece = piece_of(manifest, kind, index)
            os.link(piece_path(folder, piece), piece_path(part, piece))
        made = assemble(part, manifest, first, end, tmp_path / "chunk.gguf")
        assert made == file_piece(tmp_path / "chunk.gguf")
        names = {tensor.name for tensor in head_of(tmp_path / "chunk.gguf").tensors}
        blocks = {name.split(".")[1] for name in names if name.startswith("blk.")}
        assert blocks == {str(number) for number in range(end - first)}
        assert {"token_embd.weight", "output_norm.weight"} <= names
        assert "output.weight" not in names


def test_metadata_of_each_kind_of_chunk(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = package
    out = tmp_path / "chunk.gguf"
    for first, end in ((0, 1), (1, 3), (2, 4)):
        assemble(folder, manifest, first, end, out)
        found = head_of(out).metadata
        assert found["llama.block_count"].integer("it") == end - first
        said = [
            found[f"dllm.chunk.{key}"].integer("it") for key in ("first_layer", "end_layer", "model_layers")
        ]
        assert said == [first, end, 4]
        assert ("tokenizer.ggml.tokens" in found) == (first == 0 or end == 4)
    assemble(folder, manifest, 0, 4, out)
    assert not [key for key in head_of(out).metadata if key.startswith("dllm.")]


@pytest.mark.parametrize(("first", "end"), [(0, 0), (2, 1), (0, 5), (4, 5), (-1, 2)])
def test_layers_that_are_none(package: tuple[Path, Manifest], tmp_path: Path, first: int, end: int) -> None:
    with pytest.raises(LayersRefused, match=f"layers {first}:{end} of a model of 4"):
        assemble(*package, first, end, tmp_path / "chunk.gguf")


@pytest.mark.parametrize("kind", [PIECE_HEADER, PIECE_EMBEDDING, PIECE_BLOCK, PIECE_OUTPUT])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_bit_anywhere_in_a_piece_and_there_is_no_chunk(
    package: tuple[Path, Manifest], tmp_path: Path, kind: int, place: str
) -> None:
    folder, manifest = package
    path = piece_path(folder, piece_of(manifest, kind))
    data = bytearray(path.read_bytes())
    at = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[place]
    data[at] ^= 0x10
    path.write_bytes(data)
    out = tmp_path / "chunk.gguf"
    out.write_text("what was there before")
    with pytest.raises(DllmError) as caught:
        assemble(folder, manifest, 0, 4, out)
    assert isinstance(caught.value, PieceRefused | MalformedBytes), caught.value
    assert out.read_text() == "what was there before"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["chunk.gguf", "package"]


def test_a_whole_piece_of_another_model(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Canonical, of the right kind, number and size; only its hash is not the manifest's."""
    folder, manifest = package
    other_model = write_model(tmp_path / "other.gguf", replace(SHAPES["llama"], seed=8))
    other = packed(other_model, tmp_path / "other")
    ours, theirs = piece_of(manifest, PIECE_BLOCK, 2), piece_of(other, PIECE_BLOCK, 2)
    assert ours.size_bytes == theirs.size_bytes and ours.root != theirs.root
    piece_path(tmp_path / "other", theirs).rename(piece_path(folder, ours))
    with pytest.raises(
        PieceRefused, match=f"block 2 has root {theirs.root.hex()} .* says {ours.root.hex()}"
    ) as caught:
        assemble(folder, manifest, 2, 4, tmp_path / "chunk.gguf")
    assert "fetch it again" in caught.value.hint
    assert not (tmp_path / "chunk.gguf").exists()
    assemble(folder, manifest, 0, 2, tmp_path / "chunk.gguf")


def test_a_manifest_that_mixes_pieces_up(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Its publisher may have registered nonsense: hashes fit, the pieces do not belong where they are named."""
    folder, manifest = package
    header, embedding, zero, one, *rest = manifest.pieces
    swapped = replace(zero, root=one.root, size_bytes=one.size_bytes)
    mixed = replace(manifest, pieces=(header, embedding, swapped, one, *rest))
    with pytest.raises(PieceRefused, match=r"tensor blk\.1\..* does not belong in piece block 0"):
        assemble(folder, mixed, 0, 2, tmp_path / "chunk.gguf")
    with pytest.raises(VerificationFailed, match="architecture 'llama', the manifest says 'qwen2'"):
        assemble(folder, replace(manifest, architecture="qwen2"), 0, 2, tmp_path / "chunk.gguf")
    shorter = replace(manifest, layers=3, pieces=(*manifest.pieces[:5], manifest.pieces[-1]))
    with pytest.raises(ModelShapeRefused, match="block_count is 4"):
        assemble(folder, shorter, 0, 2, tmp_path / "chunk.gguf")


def test_a_missing_piece_and_a_link(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = package
    path = piece_path(folder, piece_of(manifest, PIECE_BLOCK, 1))
    elsewhere = path.rename(tmp_path / "elsewhere")
    with pytest.raises(PackageNotFound, match="block 1 cannot be read: No such file"):
        assemble(folder, manifest, 0, 2, tmp_path / "chunk.gguf")
    path.symlink_to(elsewhere)
    with pytest.raises(PackageNotFound, match="block 1 cannot be read"):
        assemble(folder, manifest, 0, 2, tmp_path / "chunk.gguf")


def test_a_disk_that_fills_up(
    package: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(DiskFull, match="No space left"):
        assemble(*package, 0, 2, tmp_path / "chunk.gguf")
    assert [one.name for one in tmp_path.iterdir()] == ["package"]


def test_places_that_cannot_be_written(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="is a folder"):
        assemble(*package, 0, 2, tmp_path)
    with pytest.raises(OutputRefused, match="No such file"):
        assemble(*package, 0, 2, tmp_path / "no" / "folder.gguf")
