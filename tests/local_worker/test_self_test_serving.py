"""A worker that serves layers proves them before it offers them, and stops offering what goes bad."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.actions import RegisterModel, SetOffer, WithdrawOffer
from dllm_protocol.model_manifest import PIECE_PROBE, Piece, piece_root, weights_of
from local_worker import self_test
from local_worker.engine_host import EngineOptions
from local_worker.keys import create_keys
from local_worker.packages.kept import CHUNK_FILE
from local_worker.packages.package import piece_path
from local_worker.self_test import SelfTestFailed
from local_worker.service import Service, ServiceOptions
from local_worker.slice_models import MODEL_FOLDER
from local_worker.slice_service import SliceOptions
from local_worker.status import read_status
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.probed import Probed, ProbedModels
from tests.local_worker.test_self_test import flipped
from tests.local_worker.workers import LIMITS


class Running:
    """A worker that serves layers of a package."""

    def __init__(self, home: Path, package: Path, layers: str) -> None:
        keys = create_keys(home)
        self.home = home
        self.chain = ChainDouble(keys.operator_address)
        options = ServiceOptions(
            home=home,
            engine=EngineOptions(package, home / "engine.log", 256, 2, 1),
            package=package,
            slices=(SliceOptions(layers=layers),),
            may_register_model=True,
            limits=LIMITS,
        )
        self.service = Service(options, [keys], [self.chain])
        self.stop, self.ready = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(
            self.service.run(self.stop, asyncio.Event(), lambda _: self.ready.set())
        )

    @property
    def chunk(self) -> Path:
        """The file that its engine has mapped."""
        return self.home / MODEL_FOLDER / CHUNK_FILE

    @property
    def offers(self) -> list[type]:
        """What it did about its offer, in order."""
        return [type(one) for one in self.chain.sent if isinstance(one, SetOffer | WithdrawOffer)]


@asynccontextmanager
async def serving(home: Path, made: Probed, layers: str) -> AsyncIterator[Running]:
    """A worker from when it serves until it has ended; whoever waits for its task has its failure."""
    worker = Running(home, made.package, layers)
    waiting = asyncio.create_task(worker.ready.wait())
    try:
        await asyncio.wait((worker.task, waiting), return_when=asyncio.FIRST_COMPLETED, timeout=60)
        assert worker.ready.is_set(), worker.task.result() if worker.task.done() else "it takes long"
        yield worker
    finally:
        waiting.cancel()
        worker.stop.set()
        await asyncio.wait((worker.task,), timeout=60)


def forged(made: Probed, folder: Path) -> Probed:
    """The same package with a probe that says something else of the block 2, as its manifest names it."""
    data = bytearray(piece_path(made.package, made.manifest.pieces[-1]).read_bytes())
    probe = made.probe(0, 3)
    assert probe.leaving is not None
    start = data.index(probe.leaving.tobytes())
    data[start : start + probe.leaving.nbytes] = (probe.leaving + 1).tobytes()
    piece = Piece(PIECE_PROBE, 0, len(data), piece_root([bytes(data)]))
    manifest = replace(made.manifest, pieces=(*weights_of(made.manifest.pieces), piece))
    (folder / "pieces").mkdir(parents=True)
    for one in weights_of(manifest.pieces):
        piece_path(folder, one).hardlink_to(piece_path(made.package, one))
    piece_path(folder, piece).write_bytes(data)
    (folder / "manifest").write_bytes(manifest.encode())
    return Probed(made.model, folder, manifest)


async def test_it_proves_itself_and_says_so(
    probed_models: ProbedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "EVERY_S", 0.05)
    async with serving(tmp_path / "w", probed_models("llama"), "1:3") as worker:
        assert worker.chain.models["tiny"].manifest == probed_models("llama").manifest
        async with asyncio.timeout(60):
            while worker.service.status.self_tests < 3:
                await asyncio.sleep(0.02)
                await worker.service._current_status()
        worker.service.status_file.write(worker.service.status)
        told = read_status(tmp_path / "w")
        assert told is not None and (told["state"], told["self_test"]) == ("serving", "exact")
        assert told["slices"][0]["layers"] == [1, 3] and told["slices"][0]["self_test"] == "exact"
    worker.task.result()
    assert worker.offers == [SetOffer, WithdrawOffer]


async def test_what_does_not_compute_what_the_probe_says_is_never_offered(
    probed_models: ProbedModels, tmp_path: Path
) -> None:
    made = forged(probed_models("llama"), tmp_path / "package")
    worker = Running(tmp_path / "w", made.package, "2:3")
    with pytest.raises(SelfTestFailed, match="what leaves block 2 is wrong, row 0"):
        await worker.task
    assert worker.chain.sent == []
    told = read_status(tmp_path / "w")
    assert told is not None and told["state"] == "failed"
    assert "layers 2:3 do not compute what their model's probe says" in told["problem"]
    # Other layers of the same package are as their probe says.
    async with serving(tmp_path / "v", made, "0:2") as other:
        assert other.offers == [SetOffer]


async def test_a_chunk_that_goes_bad_while_it_serves_is_withdrawn(
    probed_models: ProbedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit of a weight changes under the running engine: what it computes from then on is not offered any more."""
    monkeypatch.setattr(self_test, "EVERY_S", 0.2)
    async with serving(tmp_path / "w", probed_models("llama"), "1:3") as worker:
        change_in_place(worker.chunk, "blk.0.attn_norm.weight")
        with pytest.raises(SelfTestFailed, match="what leaves block 2 is wrong"):
            await asyncio.wait_for(asyncio.shield(worker.task), 60)
    assert worker.offers == [SetOffer, WithdrawOffer]
    told = read_status(tmp_path / "w")
    assert told is not None and told["state"] == "failed"
    assert "do not compute" in told["problem"]


async def test_an_engine_that_is_started_again_is_tested_again(
    probed_models: ProbedModels, tmp_path: Path
) -> None:
    async with serving(tmp_path / "w", probed_models("llama"), "1:3") as worker:
        host = worker.service.slices[0].engine
        os.kill(host.current()._process.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not host.restarts:  # noqa: ASYNC110  nothing announces a new engine
                await asyncio.sleep(0.02)
        assert (await worker.service._current_status()).self_tests == 2
        change_in_place(worker.chunk, "blk.0.attn_norm.weight")
        os.kill(host.current()._process.pid, signal.SIGKILL)
        with pytest.raises(SelfTestFailed):
            await asyncio.wait_for(asyncio.shield(worker.task), 60)
        assert not host.alive
    assert worker.offers == [SetOffer, WithdrawOffer]


async def test_the_registrys_probe_counts_where_it_lies_in_the_package(
    probed_models: ProbedModels, tmp_path: Path
) -> None:
    """Two who cut one file have one model, whosever probe the registry names."""
    made = probed_models("llama")
    other = forged(made, tmp_path / "package")
    async with serving(tmp_path / "first", made, "0:4") as first:
        registered = first.chain.models["tiny"]
    assert registered.manifest == made.manifest
    worker = Running(tmp_path / "w", other.package, "2:3")
    worker.chain.models["tiny"] = registered
    with pytest.raises(SelfTestFailed):  # the registry's probe is not there: its own is looked at
        await worker.task
    mine = piece_path(made.package, made.manifest.pieces[-1])
    piece_path(other.package, made.manifest.pieces[-1]).hardlink_to(mine)
    again = Running(tmp_path / "v", other.package, "2:3")
    again.chain.models["tiny"] = registered
    await asyncio.wait_for(again.ready.wait(), 60)
    assert RegisterModel not in [type(one) for one in again.chain.sent]
    again.stop.set()
    await again.task


def change_in_place(path: Path, tensor: str) -> None:
    """Flip a bit of a weight in a file that an engine has mapped."""
    before = path.read_bytes()
    spare = path.with_name("spare.gguf")
    spare.write_bytes(before)
    after = flipped(spare, tensor, 5, 27).read_bytes()
    at = next(n for n, (one, other) in enumerate(zip(before, after, strict=True)) if one != other)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(after[at : at + 1])
