"""Joining the embedded network: stale doors, strangers, supervisors that say nothing or end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.embedded import door
from dllm_chat.embedded.chain import LOCAL_PARAMS, make_genesis
from dllm_chat.embedded.door import join_embedded
from dllm_chat.embedded.wire import DOOR_FILE, LOCK_FILE, EmbeddedFailed, SupervisorLost, read_line, send_line
from dllm_chat.paths import Paths, file_lock, find_paths, make_private_folder, write_private
from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle, SignedBundle

TOKEN = "ab" * 32
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = find_paths(tmp_path / "home")
    make_private_folder(found.embedded)
    genesis = make_genesis(
        wallet=b"\1" * 20,
        workers=[b"\2" * 20],
        validator=b"\3" * 32,
        genesis_time_ms=1_700_000_000_000,
        nonce=b"\4" * 32,
    )
    bundle = NetworkBundle(
        BUNDLE_VERSION, genesis, 1, b"\5" * 32, ("ws://127.0.0.1:1/websocket",), (), (), ""
    )
    write_private(found.embedded / "bundle", SignedBundle(bundle, b"", b"").encode())
    return found


@asynccontextmanager
async def supervisor(home: Path, serve: Serve, *, holds_lock: bool = True) -> AsyncIterator[None]:
    """Somebody behind the door file."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    write_private(home / DOOR_FILE, json.dumps({"port": port, "token": TOKEN}).encode())
    if not holds_lock:
        yield
    else:
        with file_lock(home / LOCK_FILE):
            yield
    server.close()


async def friendly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    hello = await read_line(reader)
    assert hello == {"token": TOKEN}
    await send_line(writer, {"progress": "starting the node"})
    await send_line(writer, {"ready": {"model": "guide"}})
    while (request := await read_line(reader)) is not None:
        answer = {"done": True} if request["op"] == "worker_on" else {"error": "no", "hint": "why"}
        await send_line(writer, answer)
    writer.close()


async def test_a_lease_tells_progress_answers_requests_and_ends(paths: Paths) -> None:
    said: list[str] = []
    async with supervisor(paths.embedded, friendly):
        lease = await join_embedded(paths, 1, said.append)
        assert said == ["starting the node"]
        assert lease.preferred_model == "guide" and not lease.lost
        assert lease.bundle.genesis.params == LOCAL_PARAMS
        assert await lease.request({"op": "worker_on"}) == {"done": True}
        with pytest.raises(EmbeddedFailed, match="no") as refused:
            await lease.request({"op": "worker_off"})
        assert refused.value.hint == "why"
        await lease.release()
        assert lease.lost


async def test_a_supervisor_that_cannot_start_is_quoted(paths: Paths) -> None:
    async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send_line(writer, {"error": "the node ended", "hint": "see the log"})
        writer.close()

    async with supervisor(paths.embedded, failing):
        with pytest.raises(EmbeddedFailed, match="the node ended"):
            await join_embedded(paths, 1, lambda _: None)


async def test_a_lost_supervisor_is_noticed(paths: Paths) -> None:
    async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_line(reader)
        await send_line(writer, {"ready": {"model": "guide"}})
        await read_line(reader)
        writer.close()

    async with supervisor(paths.embedded, leaving):
        lease = await join_embedded(paths, 1, lambda _: None)
        with pytest.raises(SupervisorLost):
            await lease.request({"op": "status"})
        assert lease.lost


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.parametrize("stranger", [nonsense, silence], ids=["talks-nonsense", "says-nothing"])
async def test_a_stranger_on_a_dead_supervisors_port_is_passed_by(
    paths: Paths, stranger: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "FIRST_WORD_S", 2.0)
    started: list[Path] = []
    begun = asyncio.Event()

    class Child:
        def poll(self) -> None:
            return None

    def start(home: Path, linger_s: int, model_file: str) -> Child:
        assert not (home / DOOR_FILE).exists(), "the stale door is swept away before another one is started"
        started.append(home)
        begun.set()
        return Child()

    monkeypatch.setattr(door, "_start_supervisor", start)
    async with supervisor(paths.embedded, stranger, holds_lock=False):
        joining = asyncio.create_task(join_embedded(paths, 1, lambda _: None))
        await begun.wait()
        async with supervisor(paths.embedded, friendly):
            lease = await joining
    assert started == [paths.embedded] and lease.preferred_model == "guide"
    await lease.release()


async def test_a_supervisor_that_ends_again_and_again_is_given_up_with_its_last_words(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_POLL_S", 0.001)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EmbeddedFailed, match=f"ended {door.MAX_STARTS} times"):
        await join_embedded(paths, 1, lambda _: None)


async def test_starting_has_an_end(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "START_TIMEOUT_S", 0.2)
    with file_lock(paths.embedded / LOCK_FILE), pytest.raises(EmbeddedFailed, match=r"within 0\.2 s"):
        await join_embedded(paths, 1, lambda _: None)


@pytest.mark.parametrize("content", ["", "[]", '{"port": "x", "token": "y"}', '{"port": 1}', "\udcff"])
async def test_a_damaged_door_file_is_no_door(paths: Paths, content: str) -> None:
    (paths.embedded / DOOR_FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert door._read_door(paths.embedded) is None
