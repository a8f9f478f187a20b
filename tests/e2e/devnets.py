"""A devnet and the people on it, by the command line alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.machine import Machine, kill, until

DLLM = str(Path(sys.executable).with_name("dllm"))
PASSWORD = "correct horse battery staple 9"
DEADLINE_S = 300.0
"""For a command: a devnet of a dozen processes starts beside other tests on two cores."""
UP_TRIES = 3
PORT_TAKEN = ("address already in use", "another program listens", "cannot listen on")


@dataclass
class Home:
    """Somebody's home with the command line."""

    machine: Machine
    password_file: Path | None = None

    @classmethod
    def at(cls, folder: Path) -> Home:
        """A home in a folder that need not exist yet."""
        return cls(Machine(folder))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [DLLM, *words],
            env=self.machine.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command that goes on."""
        with log.open("wb") as out:
            return subprocess.Popen(
                [DLLM, *words],
                env=self.machine.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def open(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command whose words are read as they come."""
        return subprocess.Popen(
            [DLLM, *words],
            env=self.machine.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def dllm(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run a command with --json; returns its data, or its error where ``code`` is not 0."""
        ran = self.run(*words, "--json")
        assert ran.returncode == code, (words, ran.stdout, ran.stderr)
        envelope = json.loads(ran.stdout)
        assert envelope["ok"] is (code == 0), envelope
        return dict(envelope["data" if code == 0 else "error"])

    def make_wallet(self) -> str:
        """A wallet of one's own; returns its address."""
        home = self.machine.home
        self.password_file = home.with_name(f"{home.name}.password")
        self.password_file.write_text(PASSWORD + "\n")
        seed = home.with_name(f"{home.name}.seed")
        words = ("wallet", "create", "main", "--password-file", str(self.password_file))
        made = self.dllm(*words, "--seed-out", str(seed))
        return str(made["accounts"][0]["address"])


@dataclass
class RunningDevnet:
    """A devnet that was brought up from ``home``."""

    home: Home
    told: dict[str, Any] = field(default_factory=dict)
    """What ``dllm devnet up --json`` said."""

    @property
    def chain_id(self) -> str:
        return str(self.told["chain_id"])

    def up(self, *words: str) -> None:
        """Bring it up; once more where somebody took one of its ports meanwhile."""
        for left in reversed(range(UP_TRIES)):
            ran = self.home.run("devnet", "up", *words, "--json")
            if ran.returncode == 0:
                self.told = json.loads(ran.stdout)["data"]
                return
            unlucky = any(text in ran.stdout for text in PORT_TAKEN)
            assert unlucky and left, (ran.stdout, ran.stderr, self.logs())
            if not self.told:  # new ports come with a new devnet; one that ran keeps its chain and waits
                self.home.dllm("devnet", "down", "--wipe")

    def status(self) -> dict[str, Any]:
        """``dllm devnet status --json``."""
        return self.home.dllm("devnet", "status")

    def until_status(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until the status is so; returns it."""
        seen: list[dict[str, Any]] = []

        def look() -> bool:
            seen[:] = [self.status()]
            return holds(seen[0])

        until(look, DEADLINE_S, what)
        return seen[0]

    def logs(self) -> str:
        """The ends of all logs, for a failing test's message."""
        folder = self.home.machine.paths.devnet
        found = [*folder.glob("logs/*"), *folder.glob("*/*/logs/*"), *folder.glob("workers/*/worker.log")]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(found))


@contextmanager
def running_devnet(folder: Path, *words: str) -> Iterator[RunningDevnet]:
    """A devnet of which nothing is left afterwards, whatever happened."""
    devnet = RunningDevnet(Home.at(folder))
    try:
        devnet.up(*words)
        yield devnet
    finally:
        devnet.home.run("devnet", "down")
        devnet.home.machine.kill_everything()


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """What Ctrl-C does; returns the exit status."""
    kill(process.pid, signal.SIGINT)
    return process.wait(DEADLINE_S)
