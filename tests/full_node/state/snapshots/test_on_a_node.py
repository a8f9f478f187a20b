"""A running solo node takes snapshots when it is told to, and none when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from full_node.home import NodeHome
from full_node.state.snapshots import ApplyResult, OfferResult, Restoration, Shelf
from full_node.state.store import Store
from tests.full_node.processes import NodeProcess, Sender, init_with, send_and_wait
from tests.full_node.state.snapshots.parts import apply_all, on_shelf

DEADLINE_S = 120


@pytest.fixture
def at_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_a_snapshot_of_a_running_node_is_its_state(tmp_path: Path, at_the_end: ExitStack) -> None:
    home = NodeHome(tmp_path / "node")
    sender, recipient = Sender.numbered(5), Sender.numbered(6)
    chain_id = init_with(home.folder, [sender])
    node = NodeProcess.start(home.folder, "--snapshot-every", "2")
    at_the_end.callback(node.end)
    async with aiohttp.ClientSession() as http:
        await send_and_wait(http, node.url, sender.transfer(recipient.address, 7))
    async with asyncio.timeout(DEADLINE_S):
        # Looked at from outside: whoever opens the shelf sweeps what is unfinished on it.
        while not any(home.snapshots.glob("[0-9]*/manifest")):  # noqa: ASYNC110 - another process takes it
            await asyncio.sleep(0.05)
    assert node.stop() == 0
    (snapshot, *_) = Shelf(home.snapshots).list()
    assert snapshot.height % 2 == 0
    giver, taker = Store(home.database), Store(tmp_path / "taker.db")
    root = giver.root_at(snapshot.height)
    restoration = Restoration(taker, chain_id)
    assert restoration.offer(snapshot, root).result is OfferResult.ACCEPT
    chunks = on_shelf(Shelf(home.snapshots), snapshot)
    assert apply_all(restoration, chunks).result is ApplyResult.ACCEPT
    assert (taker.version, taker.root) == (snapshot.height, root)
    giver.close()
    taker.close()


async def test_a_node_that_was_not_told_takes_none(tmp_path: Path, at_the_end: ExitStack) -> None:
    home = NodeHome(tmp_path / "node")
    sender, recipient = Sender.numbered(5), Sender.numbered(6)
    init_with(home.folder, [sender])
    node = NodeProcess.start(home.folder)
    at_the_end.callback(node.end)
    async with aiohttp.ClientSession() as http:
        await send_and_wait(http, node.url, sender.transfer(recipient.address, 7))
    assert node.stop() == 0
    assert Shelf(home.snapshots).heights() == []
