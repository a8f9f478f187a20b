"""What one client's channel may cost, and that it ends whatever fails."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.records import MAX_STAGES
from dllm_protocol.session.provider import ProviderLeg, StandBetween
from light_node.channel.link import Link
from local_worker import session_host, stage_server
from local_worker.row_room import RowRoom
from local_worker.session_host import LINES_BURST, SessionHost
from local_worker.stage_server import StageServer


class Full(Exception):
    """As a disk that takes nothing more."""


async def nowhere(*_: object) -> None:
    raise Full


def host_of(orders: int) -> SessionHost:
    """A host whose client names another line in each message."""
    lines = iter([StandBetween(n, b"", bytes([n % 251]) * 20, 0) for n in range(1, orders + 1)])
    leg = SimpleNamespace(
        terms=SimpleNamespace(session=bytes(32)),
        standing=None,
        receive=lambda frame: iter([frame]),
        unlinked=lambda *_: b"",
    )
    leg.ready = lambda **_: b""

    async def receive() -> Any:
        await asyncio.sleep(0)
        for line in lines:
            return line
        raise ChannelRefused("the client left")

    async def send(_: bytes) -> None:
        await asyncio.sleep(0)

    bench = SimpleNamespace(vocabulary_bytes=b"", store=nowhere)
    link = SimpleNamespace(receive=receive, send=send)
    return SessionHost(
        cast(Any, leg), cast(Any, link), cast(Any, bench), cast(Any, SimpleNamespace(room=RowRoom()))
    )


async def test_a_client_that_changes_its_line_without_end_loses_its_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each line makes this stage dial, and whoever it dials look the session up on chain."""
    assert LINES_BURST > 2 * MAX_STAGES, "each standby of the longest route may be asked"
    monkeypatch.setattr(session_host, "LINES_PER_S", 0.0)
    host, taken = host_of(10 * LINES_BURST), list[int]()

    async def ready(_: SessionHost) -> None:
        return

    async def stored(*_: object) -> None:
        return

    monkeypatch.setattr(SessionHost, "_send_ready", ready)
    cast(Any, host._bench).store = stored
    monkeypatch.setattr(host.place, "stand", lambda order: taken.append(order.generation))
    with pytest.raises(ChannelRefused, match="line was changed"):
        await host.serve()
    assert len(taken) == LINES_BURST


async def test_a_channel_has_ended_even_if_its_standing_could_not_be_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the session's next channel waits for that in vain."""
    host = host_of(0)

    async def ready(_: SessionHost) -> None:
        return

    monkeypatch.setattr(SessionHost, "_send_ready", ready)
    with pytest.raises(Full):
        await host.serve()
    assert host._ended.is_set()


async def test_a_channel_that_is_cancelled_before_it_is_served_leaves_no_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever came next would wait for its end for a quarter of a minute, and then fail."""
    monkeypatch.setattr(stage_server, "manifest_hash", lambda _: bytes(32))
    stores = SimpleNamespace(standing=nothing_stored)
    server = StageServer(
        chain=cast(Any, None),
        keys=cast(Any, SimpleNamespace(service=None)),
        provider=bytes(20),
        manifest=cast(Any, None),
        bench=cast(Any, SimpleNamespace(vocabulary_bytes=b"")),
        store=cast(Any, stores),
    )
    leg = cast(ProviderLeg, SimpleNamespace(terms=SimpleNamespace(session=bytes(32)), standing=None))
    async with server._arrived:
        replacing = asyncio.create_task(server._replace(bytes(32), leg, cast(Link, None)))
        for _ in range(10):
            await asyncio.sleep(0)
        replacing.cancel()
        with suppress(asyncio.CancelledError):
            await replacing
    assert server.connected == frozenset()


async def nothing_stored(_: bytes) -> None:
    return None
