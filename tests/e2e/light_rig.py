"""A published network of one node, a witness before it, and people with homes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_protocol.address import encode_address
from tests.e2e.lying_node import Lie, lying_node
from tests.e2e.machine import until
from tests.full_node.processes import Sender

DEADLINE_S = 120.0
PREFIX = "tdllm"
OTHER_CLOCK = """
import os, time
_shift_ns = int(os.environ["TEST_CLOCK_SHIFT_S"]) * 10**9
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift_ns / 1e9
time.time_ns = lambda: _time_ns() + _shift_ns
"""
"""Python's own hook at start: the process then lives at another time."""


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        assert self.code == 0, (self.out, self.err)
        return dict(json.loads(self.out)["data"])

    @property
    def error(self) -> dict[str, str]:
        assert self.code != 0, self.out
        return dict(json.loads(self.out)["error"])


@dataclass(frozen=True)
class Home:
    """Somebody's home."""

    folder: Path
    shift_s: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return clocked(self.folder.parent, self.shift_s) | {"DLLM_HOME": str(self.folder), "COLUMNS": "80"}

    def dllm(self, *words: str | Path) -> Ran:
        """Run a command to its end."""
        ran = subprocess.run(
            self.command(*words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "dllm_chat.cli.main", *map(str, words)]

    @contextmanager
    def serving(self, *words: str | Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """A command that goes on, with the data that it announced."""
        process = subprocess.Popen(
            self.command(*words, "--json"),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"{words} ended with {process.wait(DEADLINE_S)} before it said anything"
            yield process, dict(json.loads(line)["data"])
        finally:
            process.kill()
            process.wait(DEADLINE_S)
            assert process.stdout is not None
            process.stdout.close()


def clocked(folder: Path, shift_s: int) -> dict[str, str]:
    """The environment of a process whose clock is off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DLLM_", "XDG_"))}
    if not shift_s:
        return kept
    hook = folder / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(OTHER_CLOCK)
    path = os.pathsep.join(filter(None, (str(hook), os.environ.get("PYTHONPATH", ""))))
    return kept | {"TEST_CLOCK_SHIFT_S": str(shift_s), "PYTHONPATH": path}


@dataclass
class Published:
    """A running network and its bundle."""

    folder: Path
    sender: Sender
    chain_id: str = ""
    address: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def node_home(self) -> Path:
        return self.folder / "node"

    @property
    def url(self) -> str:
        return f"ws://{self.address}/websocket"

    def start(self, shift_s: int = 0) -> None:
        """Start the node, at the same address as before."""
        ready = self.node_home / "rpc.json"
        ready.unlink(missing_ok=True)
        listen = ["--rpc-listen", self.address] if self.address else []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "full_node",
                "start",
                "--home",
                str(self.node_home),
                "--lifeline",
                *listen,
            ],
            env=clocked(self.folder, shift_s),
            stdin=subprocess.PIPE,
            stdout=(self.folder / "node.out").open("ab"),
            stderr=subprocess.STDOUT,
        )
        process = self.process

        def stands() -> bool:
            log = self.folder / "node.out"
            assert process.poll() is None, (
                f"the node ended with {process.returncode}: {log.read_text()[-2000:]}"
            )
            return ready.exists()

        until(stands, DEADLINE_S, "the node's door")
        self.address = str(json.loads(ready.read_text())["address"])

    def stop(self) -> None:
        """Stop it in order."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.wait(DEADLINE_S)

    def publish(self, *options: str) -> dict[str, Any]:
        """A bundle with a root of now."""
        made: list[dict[str, Any]] = []

        def try_it() -> bool:
            words = ["bundle", "--home", str(self.node_home), "--json", *options]
            ran = subprocess.run(
                [sys.executable, "-m", "full_node", *words], capture_output=True, text=True, check=False
            )
            if ran.returncode == 0:
                made.append(json.loads(ran.stdout)["data"])
            return ran.returncode == 0

        until(try_it, DEADLINE_S, "the node's first block")
        return made[0]


@contextmanager
def published(folder: Path, shift_s: int = 0) -> Iterator[Published]:
    """A test network on loopback whose sender has money."""
    network = Published(folder, Sender.numbered(5))
    account = f"{encode_address(PREFIX, network.sender.address)}=1000"
    made = subprocess.run(
        [
            *(sys.executable, "-m", "full_node", "init", "--home", str(network.node_home)),
            *("--chain-prefix", PREFIX, "--name", "lighted", "--account", account, "--json"),
        ],
        env=clocked(folder, shift_s),
        capture_output=True,
        text=True,
        check=True,
    )
    network.chain_id = str(json.loads(made.stdout)["data"]["chain_id"])
    try:
        network.start(shift_s)
        yield network
    finally:
        network.stop()


@contextmanager
def node_before(url: str, *lies: Lie) -> Iterator[str]:
    """Another address of a node, which may lie; served by a thread."""
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    ready: list[str] = []
    stands = threading.Event()

    async def serve() -> None:
        async with lying_node(url, *lies) as address:
            ready.append(address)
            stands.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert stands.wait(DEADLINE_S)
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(DEADLINE_S)
        loop.close()


def wide_lines(text: str, spared: Sequence[str] = ()) -> list[str]:
    """Lines that do not fit a terminal of 80 columns, apart from those with words that cannot be broken."""
    return [line for line in text.splitlines() if len(line) > 80 and not any(one in line for one in spared)]
