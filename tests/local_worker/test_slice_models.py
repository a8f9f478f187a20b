"""Where a slice's bytes come from: held against the manifest, and given up when nobody waits for them."""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.model_manifest import Manifest
from local_worker.engine.client import Engine
from local_worker.engine.errors import ModelRefused
from local_worker.errors import ModelMismatch
from local_worker.packages.assembling import assemble
from local_worker.packages.disk import Progress
from local_worker.packages.package import MANIFEST_FILE
from local_worker.slice_models import PackagedLayers, SharedPackage, in_thread
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, Manifest]:
    model = write_model(tmp_path / "model.gguf", SHAPES["llama"])
    return tmp_path / "package", packed(model, tmp_path / "package")


def layers_of(package: Path, layers: str, home: Path) -> PackagedLayers:
    return PackagedLayers(SharedPackage(package, None, home, None, None), layers, home)


async def test_what_llama_cpp_reads_out_of_a_chunk_is_held_against_the_manifest(
    tmp_path: Path, package: tuple[Path, Manifest]
) -> None:
    folder, manifest = package
    chain, chunk = ChainDouble(b"\1" * 20), tmp_path / "chunk.gguf"
    await asyncio.to_thread(assemble, folder, manifest, 2, 4, chunk)
    engine = await Engine.start(
        chunk, context_rows=256, sequences=1, threads=1, log_path=tmp_path / "engine.log"
    )
    try:
        served = await layers_of(folder, "2:4", tmp_path).identify(chain, engine)
        assert (served.first_layer, served.end_layer, served.context_rows) == (2, 4, 256)
        with pytest.raises(ModelMismatch, match=r"layers: \(2, 4\), tiny promises \(1, 4\)"):
            await layers_of(folder, "1:4", tmp_path).identify(chain, engine)
        other = Path(shutil.copytree(folder, tmp_path / "other"))
        lie = replace(manifest, vocabulary_hash=b"\7" * 32)
        await asyncio.to_thread((other / MANIFEST_FILE).write_bytes, lie.encode())
        with pytest.raises(ModelMismatch, match=f"vocabulary is .*promises {'07' * 32}"):
            await layers_of(other, "2:4", tmp_path).identify(chain, engine)
        lie = replace(manifest, architecture="qwen2")
        await asyncio.to_thread((other / MANIFEST_FILE).write_bytes, lie.encode())
        with pytest.raises(ModelMismatch, match="architecture: llama, tiny promises qwen2"):
            await layers_of(other, "2:4", tmp_path).identify(chain, engine)
    finally:
        await engine.close()


async def test_neither_package_nor_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no package and no model"):
        await SharedPackage(None, None, tmp_path, None, None).found(ChainDouble(b"\1" * 20))


async def test_work_that_nobody_waits_for_ends_before_its_next_piece() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    done: list[str] = []

    def work(progress: Progress) -> None:
        try:
            for number, name in enumerate(("one", "two", "three"), start=1):
                progress(name, number, 3)
                done.append(name)
                begun.set()
                go_on.wait(10)
        finally:
            ended.set()

    waiting = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert done == ["one"]
