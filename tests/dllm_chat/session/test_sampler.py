"""Picking tokens: greedy is exact, chance is seeded, and every limit cuts where it says."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.events import Sampling
from dllm_chat.session.sampler import BadSampling, Sampler, check_sampling

IDS = [7, 3, 9, 1]
LOGITS = [2.0, 1.5, 1.5, -1.0]
PLAIN = {"top_p": 1.0, "top_k": 256, "min_p": 0.0}


def picks(sampling: Sampling, count: int, seen: frozenset[int] = frozenset()) -> Counter[int]:
    sampler = Sampler(sampling, fallback_seed=1)
    return Counter(sampler.pick(IDS, LOGITS, seen) for _ in range(count))


def test_greedy_takes_the_likeliest_and_the_smaller_token_of_equals() -> None:
    sampler = Sampler(Sampling(temperature=0.0), 0)
    assert sampler.pick(IDS, LOGITS, ()) == 7
    assert sampler.pick([9, 3], [1.5, 1.5], ()) == 3


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    def run(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed, **PLAIN), fallback_seed=99)
        return [sampler.pick(IDS, LOGITS, ()) for _ in range(40)]

    assert run(5) == run(5) != run(6)


def test_without_limits_tokens_come_as_often_as_softmax_says() -> None:
    found = picks(Sampling(temperature=0.8, seed=3, **PLAIN), 20_000)
    weights = [math.exp(logit / 0.8) for logit in LOGITS]
    for token, weight in zip(IDS, weights, strict=True):
        assert found[token] / 20_000 == pytest.approx(weight / sum(weights), abs=0.015)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        ({"top_k": 1}, {7}),
        ({"top_k": 2}, {7, 3}),
        ({"top_p": 0.4}, {7}),
        ({"top_p": 0.6}, {7, 3}),
        ({"min_p": 0.5}, {7, 3, 9}),
        ({"min_p": 1.0}, {7}),
        ({"top_p": 0.0}, {7}),
    ],
)
def test_limits_cut_where_they_say(limit: dict[str, float], kept: set[int]) -> None:
    sampling = Sampling(temperature=1.0, seed=1, **(PLAIN | limit))  # type: ignore[arg-type]  # by name
    assert set(picks(sampling, 500)) == kept


def test_the_repetition_penalty_divides_what_is_likely_and_multiplies_what_is_not() -> None:
    greedy = Sampling(temperature=0.0, repetition_penalty=2.0)
    assert Sampler(greedy, 0).pick(IDS, LOGITS, {7}) == 3
    assert Sampler(greedy, 0).pick([1, 2], [-1.0, -1.5], {1}) == 2
    assert Sampler(Sampling(temperature=0.0), 0).pick(IDS, LOGITS, {7}) == 7


@pytest.mark.parametrize(
    "bad",
    [
        Sampling(temperature=-0.1),
        Sampling(temperature=math.nan),
        Sampling(top_p=1.1),
        Sampling(top_k=0),
        Sampling(min_p=-1.0),
        Sampling(repetition_penalty=0.0),
    ],
)
def test_values_outside_their_range_are_refused_by_name(bad: Sampling) -> None:
    with pytest.raises(BadSampling, match="allowed is"):
        check_sampling(bad)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=64).map(lambda found: sorted(found, reverse=True)),
    st.floats(0.0, 10.0),
    st.floats(0.0, 1.0),
    st.integers(1, 256),
    st.floats(0.0, 1.0),
    st.floats(0.1, 10.0),
)
def test_whatever_is_asked_some_candidate_comes(
    logits: list[float], temperature: float, top_p: float, top_k: int, min_p: float, penalty: float
) -> None:
    sampling = Sampling(temperature, top_p, top_k, min_p, penalty, seed=4)
    ids = list(range(len(logits)))
    assert Sampler(sampling, 0).pick(ids, logits, {0}) in ids
