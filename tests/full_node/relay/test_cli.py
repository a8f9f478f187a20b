"""`dllm-node relay` as a process: what it says, counts, logs and leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol.relay import key_address
from dllm_protocol.signing import SeedSigner
from full_node.relay.limits import RelayRefused
from full_node.relay.run import name_of, own_names
from light_node.relay.connection import connect, dial
from light_node.relay.listening import ByKey, RelayListener
from light_node.relay.urls import relay_url
from tests.documented_metrics import documented
from tests.full_node.processes import NODE, dllm_node
from tests.full_node.relay.test_server import echo

KEY = SeedSigner(b"\x51" * 32)
DEADLINE_S = 60


@contextmanager
def relay(home: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A relay's process, and the line that it said."""
    process = subprocess.Popen(
        [*NODE, "relay", "--home", str(home), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_S)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


async def _used(url: str) -> None:
    """A key listens, somebody dials it."""
    place = relay_url(url)
    listener = RelayListener(place, ByKey(KEY), echo, streams_max=2)
    await listener.start()
    task = asyncio.create_task(listener.run())
    stream = await dial(place, key_address(KEY.public_key))
    await stream.send(b"hello")
    assert await stream.read() == b"hello"
    await stream.close()
    task.cancel()
    await asyncio.wait([task])
    await listener.close()


def test_a_relay_says_where_it_is_forwards_counts_and_ends_in_order(tmp_path: Path) -> None:
    home = tmp_path / "relay"
    with relay(home, "--metrics-listen", "127.0.0.1:0", "--json") as (process, line):
        data = json.loads(line)["data"]
        port = data["url"].rpartition(":")[2]
        assert data["names"] == [f"127.0.0.1:{port}", f"[::1]:{port}", f"localhost:{port}"]
        assert (data["protocol"], data["pid"]) == ("dllm-relay.1", process.pid)
        assert json.loads((home / "relay.json").read_text()) == data
        assert stat.S_IMODE((home / "relay.json").stat().st_mode) == 0o600
        asyncio.run(_used(data["url"]))
        with urllib.request.urlopen(
            f"http://{data['metrics_address']}/metrics", timeout=DEADLINE_S
        ) as answer:
            text = answer.read().decode()
        assert {row.split(" ")[2] for row in text.splitlines() if row.startswith("# TYPE")} == documented(
            "relay"
        )
        assert "dllm_relay_streams_total 1" in text
        assert "dllm_relay_forwarded_bytes_total 10" in text
        second = dllm_node("relay", "--home", home, "--json")
        assert (second.returncode, json.loads(second.stdout)["error"]["code"]) == (2, "E_RELAY_SETTING")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "", "one object and nothing more"
    assert not (home / "relay.json").exists()
    log = (home / "logs" / "node.log").read_text()
    assert [json.loads(row)["level"] for row in log.splitlines()] == ["info"] * 2
    assert KEY.public_key.hex() not in log


def test_without_json_it_speaks_and_with_a_lifeline_it_ends_with_its_holder(tmp_path: Path) -> None:
    with relay(tmp_path / "relay", "--lifeline", "--name", "relay.example") as (process, line):
        assert line.startswith("relay at 127.0.0.1:")
        assert "relay.example:443" in line
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0


def test_a_killed_relay_starts_again_in_the_same_folder(tmp_path: Path) -> None:
    home = tmp_path / "relay"
    with relay(home, "--json") as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)
    with relay(home, "--json") as (_, line):
        url = json.loads(line)["data"]["url"]

        async def reached() -> None:
            await (await connect(relay_url(url), DEADLINE_S)).close()

        asyncio.run(reached())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--listen", "0.0.0.0:0"), "--name HOST"),
        (("--listen", "nowhere"), "--listen"),
        (("--streams", "300"), "--connections"),
        (("--idle-s", "0"), "idle_ms"),
        (("--name", "wss://relay.example"), "--name"),
        (("--listen", "192.0.2.1:9"), "--listen"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_listens(
    tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    ran = dllm_node("relay", "--home", tmp_path / "relay", "--json", *words)
    assert ran.returncode == 2
    error = json.loads(ran.stdout)["error"]
    assert what in error["message"] + error["hint"]


def test_names_are_written_in_one_way() -> None:
    assert name_of("Relay.Example") == "relay.example:443"
    assert name_of("relay.example:9700") == "relay.example:9700"
    assert name_of("[2001:db8::7]") == name_of("2001:db8:0::7") == "[2001:db8::7]:443"
    assert name_of("[2001:db8::7]:9700") == "[2001:db8::7]:9700"
    for bad in ("", ":1", "a:0", "a:65536", "a:b", "a b", "a/b", "me@a", "wss://a", "a" * 300):
        with pytest.raises(RelayRefused):
            name_of(bad)


def test_a_relay_goes_by_where_it_listens_unless_that_is_everywhere() -> None:
    assert own_names("127.0.0.1", 1) == own_names("localhost", 1) == {"127.0.0.1:1", "localhost:1", "[::1]:1"}
    assert own_names("192.168.1.20", 1) == {"192.168.1.20:1"}
    assert own_names("relay.lan", 1) == {"relay.lan:1"}
    assert own_names("0.0.0.0", 1) == own_names("::", 1) == frozenset()


def test_help_tells_what_it_is_for(tmp_path: Path) -> None:
    said: Any = dllm_node("relay", "--help")
    assert said.returncode == 0
    for word in ("--listen", "--name", "--behind-proxy", "--streams", "docs/operating/relay.md"):
        assert word in said.stdout
