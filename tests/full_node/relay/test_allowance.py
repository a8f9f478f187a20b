"""Openings are counted by remote, come back with time, and the count itself is bounded."""

from __future__ import annotations

from full_node.relay.allowance import Allowance


def test_a_remote_has_so_many_and_they_come_back_one_by_one() -> None:
    allowance = Allowance(per_minute=3)
    assert [allowance.take("a", 0) for _ in range(4)] == [True, True, True, False]
    assert allowance.take("b", 0)
    assert not allowance.take("a", 19_000)
    assert allowance.take("a", 20_001)
    assert not allowance.take("a", 20_002)


def test_what_is_given_back_does_not_count() -> None:
    allowance = Allowance(per_minute=1)
    for _ in range(5):
        assert allowance.take("a", 0)
        allowance.give_back("a", 0)
    allowance.give_back("unknown", 0)
    assert len(allowance) == 1


def test_remotes_that_stayed_away_are_forgotten() -> None:
    allowance = Allowance(per_minute=2)
    allowance.take("a", 0)
    allowance.take("b", 50_000)
    allowance.forget(60_000)
    assert len(allowance) == 1


def test_more_remotes_than_can_be_counted_wait() -> None:
    allowance = Allowance(per_minute=1, remotes_max=2)
    assert allowance.take("a", 0)
    assert allowance.take("b", 0)
    assert not allowance.take("c", 0)
    assert not allowance.take("c", 60_001)
    allowance.forget(60_001)
    assert allowance.take("c", 60_001)
