"""How often a faucet gives: by address, by client, in all; over restarts, and whatever the clock does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from full_node.faucet.errors import FaucetRefused, LimitReached
from full_node.faucet.grants import MAX_IN_TOTAL, Grants, Limits, client_of

ALICE, BOB, CAROL = (bytes([n]) * 20 for n in (1, 2, 3))
LIMITS = Limits(window_s=100, per_address=1, per_client=2, in_total=3)


class Clock:
    """Seconds, as the test wants them."""

    def __init__(self) -> None:
        self.now_s = 1_000

    def __call__(self) -> int:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def grants(tmp_path: Path, clock: Clock) -> Grants:
    return Grants(tmp_path / "grants.db", LIMITS, clock)


def test_an_address_gets_once_in_a_window(grants: Grants, clock: Clock) -> None:
    grants.reserve(ALICE, "a")
    clock.now_s += 40
    with pytest.raises(LimitReached, match="this address got tokens 1 times in the last 100 s") as caught:
        grants.reserve(ALICE, "b")
    assert caught.value.retry_after_s == 60
    clock.now_s += 59
    with pytest.raises(LimitReached):
        grants.reserve(ALICE, "b")
    clock.now_s += 1
    grants.reserve(ALICE, "b")


def test_a_client_with_many_addresses_is_one_client(grants: Grants) -> None:
    grants.reserve(ALICE, "a")
    grants.reserve(BOB, "a")
    with pytest.raises(LimitReached, match="you got tokens 2 times"):
        grants.reserve(CAROL, "a")


def test_everybody_together_has_a_limit_too(grants: Grants) -> None:
    for address, client in ((ALICE, "a"), (BOB, "b"), (CAROL, "c")):
        grants.reserve(address, client)
    assert grants.left_in_total() == 0
    with pytest.raises(LimitReached, match="everybody together got tokens 3 times"):
        grants.reserve(b"\4" * 20, "d")


def test_what_was_not_paid_does_not_count(grants: Grants) -> None:
    number = grants.reserve(ALICE, "a")
    grants.release(number)
    assert grants.left_in_total() == 3
    grants.reserve(ALICE, "a")


def test_limits_hold_across_a_restart(tmp_path: Path, grants: Grants, clock: Clock) -> None:
    grants.reserve(ALICE, "a")
    grants.close()
    again = Grants(tmp_path / "grants.db", LIMITS, clock)
    with pytest.raises(LimitReached):
        again.reserve(ALICE, "a")
    assert (tmp_path / "grants.db").stat().st_mode & 0o077 == 0


def test_a_clock_that_was_set_back_locks_nobody_out_for_longer_than_a_window(
    grants: Grants, clock: Clock
) -> None:
    clock.now_s += 1_000_000
    grants.reserve(ALICE, "a")
    clock.now_s -= 1_000_000
    with pytest.raises(LimitReached) as caught:
        grants.reserve(ALICE, "a")
    assert caught.value.retry_after_s <= LIMITS.window_s
    clock.now_s += LIMITS.window_s
    grants.reserve(ALICE, "a")


@given(
    asks=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 60)), min_size=1, max_size=40
    )
)
def test_no_window_ever_holds_more_than_the_limits(
    tmp_path_factory: pytest.TempPathFactory, asks: list[tuple[int, int, int]]
) -> None:
    clock = Clock()
    given_out: list[tuple[int, int, int]] = []
    grants = Grants(tmp_path_factory.mktemp("grants") / "grants.db", LIMITS, clock)
    for address, client, pause_s in asks:
        clock.now_s += pause_s
        try:
            grants.reserve(bytes([address]) * 20, str(client))
        except LimitReached:
            continue
        given_out.append((clock.now_s, address, client))
    grants.close()
    for at_s, *_ in given_out:
        window = [one for one in given_out if at_s - LIMITS.window_s < one[0] <= at_s]
        assert len(window) <= LIMITS.in_total
        for address in range(4):
            assert sum(one[1] == address for one in window) <= LIMITS.per_address
        for client in range(3):
            assert sum(one[2] == client for one in window) <= LIMITS.per_client


@pytest.mark.parametrize(
    "limits",
    [
        Limits(window_s=0),
        Limits(per_address=0),
        Limits(per_client=2_000),
        Limits(in_total=MAX_IN_TOTAL + 1),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: Limits) -> None:
    with pytest.raises(FaucetRefused):
        limits.check()


@pytest.mark.parametrize(
    ("remote", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_a_household_is_one_client(remote: str | None, client: str) -> None:
    assert client_of(remote) == client
