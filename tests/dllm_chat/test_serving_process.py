"""What has become of a worker's process, and what it said: with programs that are no workers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from dllm_chat.embedded.door import EmbeddedLease
from dllm_chat.embedded.wire import SupervisorLost
from dllm_chat.serving_process import Fate, OwnProcess, SupervisedProcess, WorkerProcess


def python(tmp_path: Path, code: str) -> OwnProcess:
    return OwnProcess([sys.executable, "-c", code], tmp_path / "logs")


async def ended(process: WorkerProcess) -> Fate:
    async with asyncio.timeout(30):
        while (fate := await process.fate()) is Fate.LIVES:  # noqa: ASYNC110 - as the code under test does
            await asyncio.sleep(0.02)
    return fate


async def test_how_a_process_ended_is_told_by_its_code(tmp_path: Path) -> None:
    for code, fate in ((0, Fate.STOPPED), (3, Fate.FAILED)):
        process = python(tmp_path, f"raise SystemExit({code})")
        await process.start()
        assert await ended(process) is fate
        await process.give_up()


async def test_only_what_it_printed_itself_counts(tmp_path: Path) -> None:
    first = python(tmp_path, "print('old words')")
    await first.start()
    await ended(first)
    second = python(tmp_path, r"print('new\x1b[31m words'); print(); print('last')")
    await second.start()
    await ended(second)
    assert second.last_words() == ["new[31m words", "last"]


async def test_one_that_is_given_up_is_gone(tmp_path: Path) -> None:
    process = python(tmp_path, "import time; time.sleep(60)")
    await process.start()
    assert await process.fate() is Fate.LIVES
    await process.give_up()
    assert await process.fate() is not Fate.LIVES


class Lease:
    """A supervisor that answers as it is told."""

    def __init__(self, home: Path) -> None:
        self.home, self.worker_home = home, home / "worker-own"
        self.asked: list[dict[str, Any]] = []
        self.workers: dict[str, bool] = {}
        self.is_lost = False

    async def request(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.is_lost:
            raise SupervisorLost("gone")
        self.asked.append(message)
        return {"status": {"workers": self.workers}}


def supervised(lease: Lease) -> SupervisedProcess:
    return SupervisedProcess(cast(EmbeddedLease, lease), {"owner": "local1x", "model": ""})


async def test_the_supervisors_child_is_asked_about_by_name(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    process = supervised(lease)
    for workers, fate in (
        ({"worker-1": True}, Fate.STOPPED),
        ({"worker-own": True}, Fate.LIVES),
        ({"worker-own": False}, Fate.FAILED),
    ):
        lease.workers = workers
        assert await process.fate() is fate


async def test_a_child_that_waits_for_its_next_try_is_ended_before_another_is_started(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    out = tmp_path / "logs" / "worker-own.out"
    out.parent.mkdir()
    out.write_text("old words\n")
    process = supervised(lease)
    await process.start()
    assert [one["op"] for one in lease.asked] == ["worker_off", "worker_on"]
    assert lease.asked[1]["owner"] == "local1x"
    with out.open("a") as more:
        more.write("new words\n")
    assert process.last_words() == ["new words"]
    # A supervisor begins a long log anew.
    out.write_text("new\n")
    assert process.last_words() == ["new"]


async def test_where_the_supervisor_is_gone_its_child_needs_no_end(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.is_lost = True
    process = supervised(lease)
    await process.give_up()
    with pytest.raises(SupervisorLost):
        await process.fate()
    assert process.last_words() == []
