"""Hostile full nodes that answer too slowly, too much, or not any more."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from light_node.errors import NoWitnessAgrees, SourceMalformed, SourceTimedOut
from light_node.providers.events import EventKind
from light_node.source import COMMIT_BYTES_MAX
from tests.light_node.hostile.rig import a_minute_after, client_of, node_of
from tests.light_node.rpc_server import send_result
from tests.light_node.signed_chain import ManualClock, SignedChain


@pytest.fixture
def chain() -> SignedChain:
    """Ten blocks by four validators."""
    made = SignedChain(("a", "b", "c", "d"))
    made.grow(10)
    return made


async def _drip(socket: ServerConnection, request: dict[str, Any]) -> None:
    """The beginning of a text frame of 65535 bytes, then a byte now and then."""
    socket.transport.write(b"\x81\x7e\xff\xff{")
    while not socket.transport.is_closing():
        socket.transport.write(b" ")
        await asyncio.sleep(0.02)


async def test_an_answer_that_drips_in(tmp_path: Path, chain: SignedChain) -> None:
    node = node_of(chain)
    node.scripts["commit"] = _drip
    async with client_of(tmp_path, chain, node, timeout_s=2) as client:
        with pytest.raises(SourceTimedOut) as caught:
            await client.sync()
        assert caught.value.message.endswith("did not answer commit within 2 s")


async def test_a_dripping_primary_is_replaced(tmp_path: Path, chain: SignedChain) -> None:
    node, one, two = node_of(chain), node_of(chain), node_of(chain)
    node.scripts["commit"] = _drip
    async with client_of(tmp_path, chain, node, [one, two], timeout_s=2) as client:
        dripping = client.primary
        # The old primary has become a witness and drips on; the other one agrees.
        assert (await client.sync()).hash() == chain.blocks[10].hash()
        assert client.primary is not dripping
        assert client.witnesses[-1] is dripping


async def test_an_oversized_answer(tmp_path: Path, chain: SignedChain) -> None:
    async def flood(socket: ServerConnection, request: dict[str, Any]) -> None:
        await send_result(socket, request, "x" * (COMMIT_BYTES_MAX + 1))

    node = node_of(chain)
    node.scripts["commit"] = flood
    async with client_of(tmp_path, chain, node) as client:
        with pytest.raises(SourceMalformed) as caught:
            await client.sync()
    assert f"at most {COMMIT_BYTES_MAX} are taken in answer to commit" in caught.value.message
    (size,) = re.findall(r"sent (\d+) bytes", caught.value.message)
    assert int(size) > COMMIT_BYTES_MAX


async def test_more_validators_than_there_may_be(tmp_path: Path, chain: SignedChain) -> None:
    pages = 0

    async def endless(socket: ServerConnection, request: dict[str, Any]) -> None:
        nonlocal pages
        pages += 1
        result = await node._result("validators", {**request["params"], "page": "1"})
        assert isinstance(result, dict)
        await send_result(socket, request, result | {"total": "10000"})

    node = node_of(chain)
    node.scripts["validators"] = endless
    async with client_of(tmp_path, chain, node) as client:
        with pytest.raises(SourceMalformed, match="pages 400 validators of height 1 and then stops"):
            await client.sync()
    assert pages == 100


async def test_a_node_that_stalls_at_a_height(tmp_path: Path, chain: SignedChain) -> None:
    stalled, one, two = node_of(chain), node_of(chain), node_of(chain)
    async with client_of(tmp_path, chain, stalled, [one, two]) as client:
        await client.sync()
        stalled.source.serve_height = 10
        name = client.primary.name
        chain.grow(5)
        assert isinstance(client.clock, ManualClock)
        client.clock.advance_s(a_minute_after(chain).now().to_ns() / 1e9 - client.clock.now().to_ns() / 1e9)
        assert (await client.sync()).hash() == chain.blocks[15].hash()
        (event,) = [event for event in client.events if event.kind is EventKind.PRIMARY_STALLED]
        assert event.message == f"{name} stands still at 10, {client.primary.name} is at 15"


async def test_a_stall_that_nobody_else_confirms_is_named(tmp_path: Path, chain: SignedChain) -> None:
    stalled, only = node_of(chain), node_of(chain)
    async with client_of(tmp_path, chain, stalled, [only]) as client:
        await client.sync()
        stalled.source.serve_height = 10
        name = client.primary.name
        chain.grow(5)
        assert isinstance(client.clock, ManualClock)
        client.clock.advance_s(60)
        with pytest.raises(NoWitnessAgrees) as caught:
            await client.sync()
        assert f"{name} is at 10, asked was 15" in caught.value.message
        assert client.status().problem == caught.value.message
        assert client.status().height == 10
