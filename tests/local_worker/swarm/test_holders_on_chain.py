"""Two worker processes on a real chain: the second one finds the first, and fetches its layers' pieces from it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dllm_protocol.errors import DllmError
from local_worker.packages.package import load_package
from tests.local_worker.network import Network, Worker
from tests.local_worker.swarm.rig import Made, held

PATIENCE_S = 60.0


async def is_listed(network: Network, model: str) -> bool:
    try:
        book = await network.chain.holder_book(model)
    except DllmError:
        return False  # the node froze another one meanwhile
    return book is not None and any(one.is_serving for one in book.entries)


async def until_found(network: Network, worker: Worker, model: str) -> None:
    """Until the chain lists it, and it seeds."""
    async with asyncio.timeout(PATIENCE_S):
        while not worker.status()["seeds_at"] or not await is_listed(network, model):  # noqa: ASYNC110
            # What is waited for happens in other processes.
            await asyncio.sleep(0.05)


async def test_a_worker_is_told_a_models_name_and_fetches_its_layers(made: Made, tmp_path: Path) -> None:
    network = await Network.start(tmp_path, made.folder, workers=2)
    out, name = tmp_path / "fetched", made.manifest.name
    try:
        first = await network.worker(0, "--package", str(made.folder), "--seed", "127.0.0.1:0")
        await until_found(network, first, name)
        second = await network.worker(1, "--package", str(out), "--layers", "1:3", "--name", name)
        assert (second.ready["model"], second.ready["layers"]) == (name, [1, 3])
        assert held(out) == made.roots(1, 3)
        assert load_package(out) == made.manifest
        for worker in (second, first):
            assert await worker.end_lifeline() == 0
    finally:
        await network.close()
