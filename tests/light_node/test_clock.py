"""The system's clock: what it says fits what the machine says."""

from __future__ import annotations

import time

from light_node.clock import SystemClock


async def test_now_lies_between_two_looks() -> None:
    clock = SystemClock()
    before = time.time_ns()
    now = clock.now().to_ns()
    assert before <= now <= time.time_ns()


async def test_the_monotonic_clock_passes_while_sleeping() -> None:
    clock = SystemClock()
    before = clock.monotonic_s()
    await clock.sleep(0.01)
    assert clock.monotonic_s() - before >= 0.009
