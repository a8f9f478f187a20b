"""Evidence in integers: it fades, it adds up, and newcomers are tried."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.records import Reputation
from dllm_protocol.reputation import NO_EVIDENCE, PPM, UNIT, faded, score_ppm, with_rating

EVIDENCE = st.builds(Reputation, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 100))
DECAY = st.integers(0, UNIT)


def test_evidence_of_the_same_or_a_later_epoch_does_not_fade() -> None:
    evidence = Reputation(5 * UNIT, UNIT, 9)
    assert faded(evidence, 9, 1) == faded(evidence, 3, 1) == evidence


def test_each_epoch_leaves_its_part() -> None:
    assert faded(Reputation(8 * UNIT, 4 * UNIT, 0), 2, UNIT // 2) == Reputation(2 * UNIT, UNIT, 2)


@given(EVIDENCE, st.integers(0, 10**9), DECAY)
def test_fading_never_adds(evidence: Reputation, epoch: int, decay: int) -> None:
    later = faded(evidence, epoch, decay)
    assert 0 <= later.successes <= evidence.successes
    assert 0 <= later.failures <= evidence.failures
    assert later.epoch == max(epoch, evidence.epoch)


def test_old_evidence_is_gone_in_the_end() -> None:
    assert faded(Reputation(10**12, 10**12, 0), 1 << 62, 65_527) == Reputation(0, 0, 1 << 62)


@given(EVIDENCE, st.integers(0, 1000), st.integers(0, 1000))
def test_a_rating_adds_its_whole_weight(evidence: Reputation, weight: int, score: int) -> None:
    rated = with_rating(evidence, weight, score)
    before = evidence.successes + evidence.failures
    assert rated.successes + rated.failures == before + weight * UNIT
    assert rated.successes - evidence.successes == weight * UNIT * score // 1000


@pytest.mark.parametrize(
    ("successes", "failures"), [(0, 0), (1, 0), (0, 1), (10, 0), (90, 10), (5000, 5000), (0, 10**6)]
)
def test_the_score_is_mean_plus_deviation_of_the_beta_distribution(successes: int, failures: int) -> None:
    a, b = successes + 1, failures + 1
    mean = a / (a + b)
    deviation = sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    expected = min(PPM, (mean + deviation) * PPM)
    assert abs(score_ppm(Reputation(successes * UNIT, failures * UNIT, 0)) - expected) <= 2


@given(EVIDENCE)
def test_a_score_is_a_share_of_a_million(evidence: Reputation) -> None:
    assert 0 <= score_ppm(evidence) <= PPM


def test_a_newcomer_stands_between_the_proven_and_the_failed() -> None:
    good, bad = Reputation(100 * UNIT, 0, 0), Reputation(0, 100 * UNIT, 0)
    assert score_ppm(bad) < score_ppm(NO_EVIDENCE) < score_ppm(good)
