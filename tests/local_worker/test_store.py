"""What the worker remembers, in order, together, and through kill -9."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_protocol.pricing import RowCounts
from dllm_protocol.session.provider import Standing
from local_worker.store import Store, Totals

ONE, TWO = b"\1" * 32, b"\2" * 32


def standing(rows: int) -> Standing:
    return Standing(None, RowCounts(rows, 0, 0, 0))


async def test_the_last_standing_counts(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    store = Store(path)
    assert await store.standing(ONE) == Standing()
    await store.put(ONE, standing(3), 30, 1)
    await store.put(ONE, standing(5), 50, 2)
    await store.put(TWO, standing(7), 70, 3)
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Store(path)
    assert await again.standing(ONE) == standing(5)
    assert [row.session for row in await again.unsettled()] == [ONE, TWO]
    assert await again.totals() == Totals(120, 0, 12, 2)
    await again.close()


async def test_what_was_paid_never_shrinks_and_a_settled_session_owes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "worker.db")
    await store.put(ONE, standing(3), 30, 1)
    await store.paid(ONE, 20, settled=False)
    await store.paid(ONE, 10, settled=False)
    row = await store.row(ONE)
    assert row is not None and (row.claimed_udllm, row.unclaimed_udllm) == (20, 10)
    await store.paid(ONE, 20, settled=True)
    await store.put(ONE, standing(3), 30, 4)
    row = await store.row(ONE)
    assert row is not None and row.settled and row.unclaimed_udllm == 0
    assert await store.unsettled() == []
    await store.close()


async def test_writes_that_come_together_are_all_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "worker.db")
    sessions = [bytes([number]) * 32 for number in range(50)]
    await asyncio.gather(*(store.put(session, standing(1), 1, 1) for session in sessions))
    assert (await store.totals()).sessions == 50
    await store.close()


async def test_a_failed_write_is_told_to_whoever_wrote(tmp_path: Path) -> None:
    store = Store(tmp_path / "worker.db")
    with pytest.raises(sqlite3.Error):
        await store._write("INSERT INTO nowhere VALUES (?)", (1,))
    await store.put(ONE, standing(1), 1, 1)
    assert await store.standing(ONE) == standing(1)
    await store.close()


def write_until_killed(path: Path) -> int:
    """Have another process store as fast as it can, kill it, and return the last number that it called stored."""
    command = [sys.executable, "-m", "tests.local_worker.crashing_store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 20:
                break
        writer.kill()
        told = writer.stdout.read().split("\n")[:-1]
    return int(told[-1]) if told else 20


async def test_what_was_stored_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    last = await asyncio.to_thread(write_until_killed, path)
    store = Store(path)
    assert (await store.standing(ONE)).served.prompt >= last
    await store.close()
