"""Packages on disk: manifests, and pieces that are not what they should be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.errors import MalformedBytes, VerificationFailed
from dllm_protocol.model_manifest import PIECE_FILE, Manifest, Piece, manifest_hash
from dllm_protocol.model_package.errors import PieceRefused
from local_worker.packages.errors import PackageNotFound
from local_worker.packages.package import load_package, piece_path, read_piece_head, verify_piece
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("package")
    return folder / "package", packed(
        write_model(folder / "m.gguf", SHAPES["llama, tied"]), folder / "package"
    )


@pytest.fixture
def package(made: tuple[Path, Manifest], tmp_path: Path) -> tuple[Path, Manifest]:
    """One's own, to be damaged."""
    return Path(shutil.copytree(made[0], tmp_path / "package")), made[1]


def test_a_manifest_is_the_one_that_is_wanted(package: tuple[Path, Manifest]) -> None:
    folder, manifest = package
    assert load_package(folder, manifest_hash(manifest)) == manifest
    with pytest.raises(VerificationFailed, match=f"has manifest {manifest_hash(manifest).hex()}, 0000"):
        load_package(folder, bytes(32))


def test_what_is_no_package(package: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = package
    with pytest.raises(PackageNotFound, match="is no package"):
        load_package(tmp_path / "nowhere")
    (folder / "manifest").write_bytes(manifest.encode() + b"\x00")
    with pytest.raises(MalformedBytes):
        load_package(folder)
    whole = replace(manifest, pieces=(Piece(PIECE_FILE, 0, 5, bytes(32)),))
    (folder / "manifest").write_bytes(whole.encode())
    with pytest.raises(VerificationFailed, match="one whole file"):
        load_package(folder)
    (folder / "manifest").write_bytes(replace(manifest, layers=3).encode())
    with pytest.raises(VerificationFailed, match="7 pieces in another order"):
        load_package(folder)


@pytest.mark.parametrize("number", range(7))
def test_every_piece_is_compared_to_the_bit(package: tuple[Path, Manifest], number: int) -> None:
    folder, manifest = package
    piece = manifest.pieces[number]
    verify_piece(folder, piece)
    path = piece_path(folder, piece)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PieceRefused, match="has root"):
        verify_piece(folder, piece)
    path.write_bytes(data[:-1])
    with pytest.raises(PieceRefused, match=f"has {len(data) - 1} bytes, the manifest says {len(data)}"):
        verify_piece(folder, piece)
    path.unlink()
    with pytest.raises(PackageNotFound):
        verify_piece(folder, piece)


def test_a_piece_in_another_form_is_no_piece(package: tuple[Path, Manifest]) -> None:
    """The same tensors, one byte of padding not zero behind the head: another file of the same meaning."""
    folder, manifest = package
    piece = manifest.pieces[2]
    _, raw = read_piece_head(folder, piece)
    assert raw.endswith(b"\x00")
    path = piece_path(folder, piece)
    data = path.read_bytes()
    path.write_bytes(data[: len(raw) - 1] + b"\x01" + data[len(raw) :])
    with pytest.raises(PieceRefused, match="not in its canonical form"):
        read_piece_head(folder, piece)
