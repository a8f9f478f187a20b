"""What `up` says to try next works on the devnet that it has made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.cli import devnets
from dllm_chat.cli.devnets import _report
from tests.dllm_chat.cli.conftest import Ran


@pytest.mark.parametrize(
    ("nodes", "workers", "killed"),
    [(4, 2, ["kill 1"]), (1, 2, ["kill worker-1"]), (3, 1, ["kill worker-1"]), (1, 0, [])],
)
def test_a_part_is_killed_that_the_network_can_spare(nodes: int, workers: int, killed: list[str]) -> None:
    report = _report(ready(nodes, workers), None, adopted=True)
    commands = [f"dllm devnet {word}" for word in ("status", *killed, "down")]
    assert report.data["next"][-len(commands) :] == commands
    assert report.text.endswith("look, break, end:" + "".join(f"\n  {line}" for line in commands))


def test_who_kills_a_part_is_told_how_it_starts_again(
    dllm: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = {"node-1": 5, "worker-1": 6}

    class Caller:
        async def request(self, order: str, part: str = "") -> dict[str, Any]:
            if order != "pids":
                running[part] = 0 if order == "kill" else 7
            return {"pids": dict(running)}

    @asynccontextmanager
    async def calling(_: object) -> AsyncIterator[Caller]:
        yield Caller()

    monkeypatch.setattr(devnets, "calling", calling)
    assert dllm("devnet", "kill", "1").out == "node-1 killed; dllm devnet restart 1 starts it again\n"
    assert dllm("devnet", "restart", "1").out == "node-1 runs again\n"
    killed = dllm("devnet", "kill", "worker-1", "--home", tmp_path / "n").out
    assert killed.endswith(f"dllm devnet restart worker-1 --home {tmp_path / 'n'} starts it again\n")


def ready(nodes: int, workers: int) -> dict[str, Any]:
    """What the supervisor tells."""
    return {
        "home": "/d",
        "engine": "solo",
        "size": "",
        "chain_id": "test-00000000",
        "bundle": "/d/network.bundle",
        "fingerprint": "f",
        "faucet": "http://127.0.0.1:1",
        "models": [],
        "nodes": [{"name": f"node-{n + 1}", "url": ""} for n in range(nodes)],
        "workers": [f"worker-{n + 1}" for n in range(workers)],
    }
