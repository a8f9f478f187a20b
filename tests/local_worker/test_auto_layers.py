"""Workers that find their own layers: real processes, a real chain, a tiny model cut into pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_protocol.holder_book import HolderBook, HolderEntry
from tests.local_worker.network import Network
from tests.local_worker.packages.tiny_models import SHAPES, write_model

LAYERS, PATIENCE_S = 4, 120.0
AUTO = ("--layers", "auto", "--most-layers", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of four layers."""
    return write_model(tmp_path_factory.mktemp("model") / "four.gguf", SHAPES["llama"])


def serving(book: HolderBook | None) -> list[HolderEntry]:
    return [one for one in book.entries if one.is_serving] if book is not None else []


def copies(book: HolderBook | None) -> list[int]:
    """Holders of each layer."""
    held = serving(book)
    return [sum(one.first_layer <= layer < one.end_layer for one in held) for layer in range(LAYERS)]


async def wait_for(network: Network, wanted: Callable[[HolderBook | None], bool]) -> HolderBook:
    """The first newest book that is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            book = await network.chain.holder_book("four")
            if wanted(book):
                assert book is not None
                return book
            await asyncio.sleep(0.2)


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  files say it, and nothing tells when
            await asyncio.sleep(0.1)


async def test_workers_cover_all_layers_then_double_them_and_take_over_what_others_leave(
    tmp_path: Path, model: Path
) -> None:
    network = await Network.start(tmp_path, model, 4)
    workers = [await network.worker(0, *AUTO)]
    try:
        # The first takes half, the second the other half, and then each layer gets its second owner.
        for number, wanted in ((1, [1, 1, 1, 1]), (2, None), (3, [2, 2, 2, 2])):
            workers.append(await network.worker(number, *AUTO))
            if wanted is not None:
                await wait_for(network, lambda book, wanted=wanted: copies(book) == wanted)
        book = await wait_for(network, lambda book: len(serving(book)) == 4)
        assert {(one.first_layer, one.end_layer) for one in book.entries} == {(0, 2), (2, 4)}
        assert all(one.speed_layer_rows_s > 1 and one.memory_layers == 2 for one in book.entries)
        assert len({one.owner for one in book.entries}) == 4
        told = [tuple(worker.ready["layers"]) for worker in workers]
        assert sorted(told) == [(0, 2), (0, 2), (2, 4), (2, 4)]
        # One leaves: what it held is still held. Then the other: of the two who are left one takes its layers over.
        first = [worker for worker, layers in zip(workers, told, strict=True) if layers == (0, 2)]
        assert await first[0].end_lifeline() == 0
        workers.remove(first[0])
        await wait_for(network, lambda book: copies(book) == [1, 1, 2, 2])
        assert await first[1].end_lifeline() == 0
        workers.remove(first[1])
        await wait_for(network, lambda book: copies(book) == [1, 1, 1, 1])
        await until(lambda: sorted(worker.status()["layers"] for worker in workers) == [[0, 2], [2, 4]])
        (moved,) = (worker for worker in workers if worker.status()["layers"] == [0, 2])
        await until(lambda: moved.status()["endpoints"])  # its door opens when the layers are loaded
        assert moved.status()["endpoints"] == moved.ready["endpoints"], "it stays where it is"
        kept = moved.home / "model" / "slices"
        await until(lambda: [folder.name for folder in kept.iterdir()] == ["0-2"])
    finally:
        for worker in workers:
            await worker.end_lifeline()
        await network.close()
