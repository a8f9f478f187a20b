"""What is kept between starts is what was wanted, whole; everything else is made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_protocol.errors import UsageRefused
from dllm_protocol.model_manifest import Manifest
from local_worker.model_files import DEFAULT_RESERVE, file_piece
from local_worker.packages.assembling import assemble
from local_worker.packages.kept import kept_chunk, kept_package
from local_worker.packages.packing import ManifestTerms
from tests.local_worker.packages.chains import TERMS, packed, quiet
from tests.local_worker.packages.splitting import split
from tests.local_worker.packages.tiny_models import SHAPES, write_model


class Stopped(Exception):
    """Somebody ended the work in its middle."""


def stop_at(name: str) -> Callable[[str, int, int], None]:
    def progress(piece: str, _number: int, _count: int) -> None:
        if piece == name:
            raise Stopped

    return progress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """A model's file, its package, its manifest."""
    folder = tmp_path_factory.mktemp("kept")
    model = write_model(folder / "model.gguf", SHAPES["llama"])
    return model, folder / "package", packed(model, folder / "package")


def test_a_chunk_is_assembled_once(tmp_path: Path, made: tuple[Path, Path, Manifest]) -> None:
    _, package, manifest = made
    folder, pieces = tmp_path / "kept", list[str]()

    def count(name: str, _number: int, _count: int) -> None:
        pieces.append(name)

    path = kept_chunk(folder, package, manifest, 1, 3, count)
    assert pieces == ["header", "block 1", "block 2"]
    assert file_piece(path) == assemble(package, manifest, 1, 3, tmp_path / "other.gguf")
    assert kept_chunk(folder, package, manifest, 1, 3, count) == path
    assert len(pieces) == 3
    kept_chunk(folder, package, manifest, 2, 3, count)
    assert pieces[3:] == ["header", "block 2"]
    assert sorted(one.name for one in folder.iterdir()) == ["chunk.gguf", "chunk.json"]


def test_work_that_was_stopped_leaves_nothing_that_is_taken_for_a_chunk(
    tmp_path: Path, made: tuple[Path, Path, Manifest]
) -> None:
    _, package, manifest = made
    kept_chunk(tmp_path, package, manifest, 0, 2, quiet)
    with pytest.raises(Stopped):
        kept_chunk(tmp_path, package, manifest, 2, 4, stop_at("block 3"))
    assert list(tmp_path.iterdir()) == []
    path = kept_chunk(tmp_path, package, manifest, 2, 4, quiet)
    record = tmp_path / "chunk.json"
    for damaged in ("", "[]", json.dumps({"root": 5}), "{" * 5000):
        record.write_text(damaged)
        assert kept_chunk(tmp_path, package, manifest, 2, 4, quiet) == path
        assert json.loads(record.read_text())["root"] == file_piece(path).root.hex()


def test_a_package_is_packed_once_for_one_file_and_one_set_of_terms(
    tmp_path: Path, made: tuple[Path, Path, Manifest]
) -> None:
    parts = split(Path(shutil.copy2(made[0], tmp_path / "own.gguf")), tmp_path, 2)
    packs: list[str] = []

    def count(name: str, _number: int, _count: int) -> None:
        packs.extend([name] if name == "header" else [])

    def keep(terms: ManifestTerms) -> Path:
        return kept_package(tmp_path / "kept", parts[1], terms, count)

    keep(TERMS)
    assert keep(TERMS) == tmp_path / "kept" / "package"
    assert len(packs) == 1
    keep(ManifestTerms("other", DEFAULT_RESERVE))
    assert len(packs) == 2
    parts[0].touch()
    keep(ManifestTerms("other", DEFAULT_RESERVE))
    assert len(packs) == 3, "another part of the same model changed"
    with pytest.raises(Stopped):
        kept_package(tmp_path / "kept", parts[0], TERMS, stop_at("block 1"))
    keep(TERMS)
    assert len(packs) == 4
    parts[0].unlink()
    with pytest.raises(UsageRefused, match="cannot be read"):
        keep(TERMS)
