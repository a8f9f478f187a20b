"""A burst, and so much a second."""

from __future__ import annotations

from local_worker.allowance import Allowance


def test_a_burst_and_then_what_comes_back() -> None:
    now = [0.0]
    allowance = Allowance(100, 10.0, lambda: now[0])
    assert allowance.take(60) and allowance.take(40)
    assert not allowance.take(1)
    now[0] = 0.5
    assert allowance.take(5) and not allowance.take(1)
    now[0] = 1000.0
    assert not allowance.take(101)
    assert allowance.take(100)


def test_what_is_refused_uses_nothing_up() -> None:
    allowance = Allowance(10, 0, lambda: 0.0)
    assert not allowance.take(11)
    assert allowance.take(10) and allowance.take(0)
