"""`dllm-node doctor` finds a broken clock, disk, port, version, key and genesis, and says what to do."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_protocol.timestamp import Timestamp
from full_node import examining
from full_node.examining import Finding, clock_finding, examine
from full_node.home import NodeHome
from full_node.state.schema import SCHEMA
from full_node.state.store import Store
from tests.full_node.processes import NodeProcess, Sender, dllm_node, init_with

NOW = Timestamp(1_790_000_000)
NS_PER_S = 1_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    init_with(tmp_path / "n", [Sender.numbered(1)])
    return NodeHome(tmp_path / "n")


def looked_at(home: NodeHome, *listens: tuple[str, int]) -> dict[str, Finding]:
    return {one.name: one for one in asyncio.run(examine(home, listens))}


def test_a_new_folder_is_healthy(home: NodeHome) -> None:
    assert {one.state for one in looked_at(home).values()} == {"ok"}


def test_a_key_that_others_may_read_and_a_broken_genesis(home: NodeHome) -> None:
    home.key.chmod(0o644)
    home.genesis.write_text("[]")
    found = looked_at(home)
    assert (found["key"].state, "chmod 600" in found["key"].hint) == ("fail", True)
    assert found["genesis"].state == "fail"


def test_a_database_of_a_newer_program_or_of_another(home: NodeHome) -> None:
    Store(home.database).close()
    assert looked_at(home)["database"].found == f"version {SCHEMA.version}"
    with sqlite3.connect(home.database) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA user_version = 99")
    found = looked_at(home)["database"]
    assert (found.state, "99" in found.found, "newer" in found.hint) == ("fail", True, True)
    home.database.write_bytes(b"no database at all")
    assert looked_at(home)["database"].state == "fail"


def test_a_full_disk(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "FREE_BYTES_MIN", 1 << 62)
    assert looked_at(home)["disk"].state == "fail"


def test_a_port_that_another_program_has(home: NodeHome) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = taken.getsockname()
        found = looked_at(home, place)[f"port 127.0.0.1:{place[1]}"]
    assert (found.state, "choose another" in found.hint) == ("fail", True)


@pytest.mark.parametrize(
    ("ahead_s", "state"), [(0, "ok"), (-30, "ok"), (59, "ok"), (61, "fail"), (-10_000, "warn")]
)
def test_the_clock_against_the_median_of_block_times(ahead_s: int, state: str) -> None:
    times = [NOW, NOW, NOW.add_ms(10**9)]
    found = clock_finding(times, 60_000, NOW.to_ns() - ahead_s * NS_PER_S)
    assert found.state == state and bool(found.hint) == (state != "ok")


@pytest.fixture
def running(home: NodeHome) -> Iterator[NodeProcess]:
    started = NodeProcess.start(home.folder)
    yield started
    started.end()


def test_a_running_node_is_asked(home: NodeHome, running: NodeProcess) -> None:
    host, _, port = running.address.rpartition(":")
    done = dllm_node("doctor", "--home", home.folder, "--listen", running.address, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["data"]["checks"]}
    assert found["clock"]["state"] == found["node"]["state"] == found[f"port {host}:{port}"]["state"] == "ok"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        unreachable = f"127.0.0.1:{closed.getsockname()[1]}"
        sick = dllm_node("doctor", "--home", home.folder, "--listen", unreachable)
    assert sick.returncode == 11 and "firewall" in sick.stdout
