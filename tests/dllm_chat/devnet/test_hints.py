"""Nodes of a devnet that were killed are named with what starts them again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.cli.failures import failure_of
from dllm_chat.devnet.hints import restart_hint
from dllm_chat.devnet.plan import COMETBFT, Folder, make_plan, prepare_folder, write_plan
from dllm_chat.embedded.wire import read_line, send_line
from dllm_chat.paths import file_lock, find_paths, write_private
from dllm_chat.session.networks import join_network, leave_network
from dllm_protocol.bundle import sign_bundle
from dllm_protocol.errors import NetworkUnreachable, NotFound
from dllm_protocol.signing import SeedSigner
from tests.vectors.record_formats import BUNDLE

PUBLISHER = SeedSigner(b"\x09" * 32)
SIGNED = sign_bundle(PUBLISHER, BUNDLE.bundle)
LOST = NetworkUnreachable("nobody answers", hint="is the node running?")


def found(folder: Folder) -> None:
    """A devnet of four nodes in a folder."""
    prepare_folder(folder)
    write_plan(folder, make_plan(COMETBFT, 4, 1, ""))
    write_private(folder.bundle, SIGNED.encode())


@pytest.fixture
def devnet(tmp_home: Path) -> Folder:
    """This home's devnet, in use here."""
    paths = find_paths()
    found(Folder(paths.devnet))
    join_network(paths, SIGNED.encode(), confirmed_signer=PUBLISHER.public_key)
    assert tmp_home.is_dir()
    return Folder(paths.devnet)


@contextmanager
def supervised(folder: Folder, pids: dict[str, int]) -> Iterator[None]:
    """A supervisor that knows who runs."""
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_line(reader)
        while await read_line(reader) is not None:
            await send_line(writer, {"pids": pids})
        writer.close()

    server: Any = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    write_private(folder.door, json.dumps({"port": port, "token": "t"}).encode())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with file_lock(folder.lock, timeout_s=1):
            yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


ALL = {"node-1": 11, "node-2": 12, "node-3": 13, "node-4": 14, "worker-1": 0}


def test_killed_nodes_are_named_with_the_command_that_starts_them(devnet: Folder) -> None:
    with supervised(devnet, ALL | {"node-2": 0}):
        hint = "node-2 of the devnet does not run: dllm devnet restart 2"
        assert restart_hint(find_paths()) == hint == failure_of(LOST).hint
        assert failure_of(NotFound("no such model", hint="another")).hint == "another"
    with supervised(devnet, ALL | {"node-1": 0, "node-4": 0}):
        assert restart_hint(find_paths()).endswith("dllm devnet restart 1; dllm devnet restart 4")


def test_a_devnet_whose_nodes_run_is_not_to_blame(devnet: Folder) -> None:
    with supervised(devnet, ALL):
        assert failure_of(LOST).hint == "is the node running?"


def test_a_devnet_whose_supervisor_is_gone_is_brought_up_again(devnet: Folder) -> None:
    assert failure_of(LOST).hint == "the devnet does not run: dllm devnet up"


def test_another_network_in_use_is_not_the_devnets_business(devnet: Folder) -> None:
    leave_network(find_paths())
    with supervised(devnet, ALL | {"node-1": 0}):
        assert failure_of(LOST).hint == "is the node running?"


def test_a_home_that_is_the_devnets_own_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Folder(tmp_path / "a net")
    found(own)
    monkeypatch.setenv("DLLM_HOME", str(own.root))
    join_network(find_paths(), SIGNED.encode(), confirmed_signer=PUBLISHER.public_key)
    with supervised(own, ALL | {"node-1": 0}):
        assert failure_of(LOST).hint.endswith(f"dllm devnet restart 1 --home '{own.root}'")


@pytest.mark.parametrize(
    "damage", [lambda folder: folder.bundle.unlink(), lambda folder: folder.plan.unlink()]
)
def test_a_damaged_devnet_gives_no_hint(devnet: Folder, damage: Callable[[Folder], None]) -> None:
    damage(devnet)
    assert failure_of(LOST).hint == "is the node running?"
