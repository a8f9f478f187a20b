"""A bundle goes through a relay whole or not at all, whatever the relay does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from dllm_chat.network import relaying
from dllm_chat.network.fetching import BUNDLE_BYTES_MAX, fetch_bundle
from dllm_chat.network.relaying import RelayedBundle, fetch_through_relay
from dllm_protocol.errors import NotFound, TimedOut, UsageRefused
from dllm_protocol.invitation import BadInvitation, InvitationRefused, bundle_hash_of
from dllm_protocol.relay import MESSAGE_BYTES_MAX, CloseReason, name_address
from dllm_protocol.relay_invitation import (
    PART_BYTES,
    RelayInvitation,
    relay_hint_of,
    sealed_parts,
    write_relay_code,
)
from full_node.relay.limits import RelayLimits
from light_node.relay.connection import dial
from light_node.relay.errors import BadRelayAddress, RelayRefused, StreamLost
from tests.full_node.relay.rig import Running, running_relay, until
from tests.light_node.relay.hostile import OPENED, Play, hostile_relay, say, silence, welcome

RAW = bytes(range(256)) * 1024
INVITATION = RelayInvitation(bundle_hash_of(RAW), 0)
PARTS = tuple(sealed_parts(RAW, INVITATION))


@asynccontextmanager
async def sharing(running: Running, raw: bytes = RAW) -> AsyncIterator[RelayedBundle]:
    """An invitation that stands."""
    shared = RelayedBundle(raw, running.url, print)
    await shared.start()
    task = asyncio.create_task(shared.run())
    try:
        yield shared
    finally:
        task.cancel()
        await asyncio.wait([task])
        await shared.stop()


async def test_guests_fetch_what_was_shared_as_often_as_they_like() -> None:
    async with running_relay() as running:
        async with sharing(running) as shared:
            code = write_relay_code(shared.invitation)
            found = await asyncio.gather(*(fetch_bundle(code, relay=running.url.url) for _ in range(5)))
            assert {(one.raw, one.origin, one.is_named) for one in found} == {
                (RAW, f"the relay {running.url.name}", True)
            }
            await until(lambda: shared.served == 5)
            one_more = await fetch_bundle(code.lower().replace("-", ""), relay=running.url.url)
            assert one_more.raw == RAW
        with pytest.raises(NotFound, match="nobody invites") as over:
            await fetch_bundle(code, relay=running.url.url)
        assert "is over" in over.value.hint


async def test_the_relay_sees_neither_the_bundle_nor_the_code() -> None:
    seen: list[bytes] = []
    async with running_relay() as running, sharing(running, b"a network's bundle " * 50) as shared:
        received = running.relay.received

        def watched(peer: int, message: bytes | str, now_ms: int) -> object:
            seen.append(message if isinstance(message, bytes) else message.encode())
            return received(peer, message, now_ms)

        running.relay.received = watched  # type: ignore[method-assign]  # to look over its shoulder
        await fetch_bundle(write_relay_code(shared.invitation), relay=running.url.url)
    assert sum(map(len, seen)) > 950
    assert not any(b"network" in one or shared.invitation.bundle_hash in one for one in seen)


async def test_a_code_that_was_made_for_another_relay_says_so() -> None:
    async with running_relay() as running:
        hint = relay_hint_of(running.url.name) ^ 1
        with pytest.raises(NotFound, match="for another relay") as wrong:
            await fetch_through_relay(running.url, RelayInvitation(bytes(10), hint), BUNDLE_BYTES_MAX)
        assert "--relay" in wrong.value.hint


async def test_codes_of_a_relay_need_a_relay_and_a_protected_line_to_it() -> None:
    code = write_relay_code(INVITATION)
    with pytest.raises(UsageRefused, match="no relay is named") as missing:
        await fetch_bundle(code)
    assert "config.toml" in missing.value.hint
    with pytest.raises(BadRelayAddress, match="not protected"):
        await fetch_bundle(code, relay="ws://relay.example")
    with pytest.raises(BadInvitation, match="typing error"):
        await fetch_bundle(("1" if code[-1] == "0" else "0").join([code[:-1], ""]), relay="ws://127.0.0.1:1")


def test_a_file_is_a_file_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = write_relay_code(INVITATION)
    Path(name).write_bytes(RAW)
    assert asyncio.run(fetch_bundle(name)).is_named is False


async def fetched_from(play: Play) -> BaseException:
    """What fetching through a hostile relay comes to."""
    async with hostile_relay(play) as url:
        with pytest.raises((InvitationRefused, TimedOut, StreamLost)) as refused:
            await fetch_through_relay(url, INVITATION, BUNDLE_BYTES_MAX)
        assert url.name in refused.value.message
        assert refused.value.hint
        return refused.value


def giving(*messages: bytes | str, pause_s: float = 0) -> Play:
    """A relay that opens a stream to itself and gives these."""

    async def play(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        for message in messages:
            await socket.send(message)
            await asyncio.sleep(pause_s)
        await silence(socket)

    return play


async def test_a_relay_that_gives_something_else_is_refused() -> None:
    other = tuple(sealed_parts(b"another bundle", RelayInvitation(bundle_hash_of(b"another bundle"), 0)))
    of_who_knows_the_code = tuple(sealed_parts(b"another bundle", INVITATION))
    for messages in (
        (b"a bundle", "end"),
        (*other, "end"),
        (*of_who_knows_the_code, "end"),
        (PARTS[1], PARTS[0], "end"),
        (*PARTS[:-1], "end"),
        ("end",),
        (*PARTS, PARTS[-1], "end"),
        (bytes(MESSAGE_BYTES_MAX),),
    ):
        assert isinstance(await fetched_from(giving(*messages)), InvitationRefused)


async def test_a_relay_that_leaves_in_between_is_named() -> None:
    async def play(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        await socket.send(PARTS[0])
        await socket.close(CloseReason.PEER_LOST)

    error = await fetched_from(play)
    assert isinstance(error, StreamLost)
    assert f"after {PART_BYTES} bytes" in error.message


async def test_a_relay_that_stalls_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "FETCH_S", 2.0)
    for play, came in ((silence, 0), (giving(), 0), (giving(*PARTS[:2]), 2 * PART_BYTES)):
        error = await fetched_from(play)
        assert isinstance(error, TimedOut)
        assert f"gave {came} bytes and no whole bundle within 2 s" in error.message


async def test_a_relay_that_drips_is_left_though_each_part_comes_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relaying, "FETCH_S", 4.0)
    error = await fetched_from(giving(*PARTS, pause_s=2.7))
    assert isinstance(error, TimedOut)
    assert f"gave {2 * PART_BYTES} bytes and no whole bundle within 4 s" in error.message


async def test_whoever_knows_the_code_cannot_make_a_guest_take_too_much() -> None:
    endless = tuple(sealed_parts(bytes(BUNDLE_BYTES_MAX + 2 * PART_BYTES), INVITATION))
    error = await fetched_from(giving(*endless))
    assert isinstance(error, InvitationRefused)
    assert f"more than {BUNDLE_BYTES_MAX} bytes" in error.message


async def test_a_guest_that_never_reads_keeps_nobody_else_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "GIVE_S", 3.0)
    large = bytes(range(256)) * (4 << 12)
    async with running_relay(RelayLimits(stall_ms=1_000)) as running, sharing(running, large) as shared:
        deaf = await dial(running.url, name_address(shared.invitation.meeting))
        deaf._socket.transport.pause_reading()
        code = write_relay_code(shared.invitation)
        assert (await fetch_bundle(code, relay=running.url.url)).raw == large
        await until(lambda: running.relay.streams == 0)
        deaf.abort()


async def test_two_who_share_the_same_bundle_cannot_both(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_relay() as running, sharing(running):
        with pytest.raises(RelayRefused, match=CloseReason.TAKEN.words):
            await RelayedBundle(RAW, running.url, print).start()
