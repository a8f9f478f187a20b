"""Blocks stay as long as evidence about them may come: by count and by time, whichever is longer."""

from __future__ import annotations

from full_node.consensus.cometbft.retention import MARKS_PER_AGE, Retention

AGE_NS = 1_000_000
STEP_NS = 10_000


def run(retention: Retention, blocks: int, step_ns: int = STEP_NS) -> list[int]:
    """Retain heights after each block."""
    found = []
    for height in range(1, blocks + 1):
        retention = retention.after(height, height * step_ns)
        found.append(retention.retain_height(height))
    return found


def test_without_a_window_everything_stays() -> None:
    assert set(run(Retention(0, 10, AGE_NS), 500)) == {0}


def test_nothing_younger_than_the_evidence_age_is_dropped() -> None:
    for height, kept in enumerate(run(Retention(20, 10, AGE_NS), 600), 1):
        assert kept <= max(0, height - 20 + 1)
        assert kept == 0 or (height - kept) * STEP_NS >= AGE_NS
    assert run(Retention(20, 10, AGE_NS), 600)[-1] > 400


def test_the_evidence_age_in_blocks_bounds_a_smaller_window() -> None:
    kept = run(Retention(5, 300, AGE_NS), 600)
    assert 250 < kept[-1] <= 600 - 300 + 1


def test_heights_only_rise_and_marks_stay_few() -> None:
    retention = Retention(5, 5, AGE_NS)
    before = 0
    for height in range(1, 5000):
        retention = retention.after(height, height * 1_000)
        assert retention.retain_height(height) >= before
        before = retention.retain_height(height)
        assert len(retention.marks) <= MARKS_PER_AGE + 2


def test_an_idle_chain_drops_nothing_by_count_alone() -> None:
    kept = run(Retention(5, 5, AGE_NS), 12, step_ns=AGE_NS // 10)
    assert kept[:11] == [0] * 11
