"""Questions to standbys: what they are, how often they come, what they cost, what an answer is worth."""

from __future__ import annotations

import random
from fractions import Fraction
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.messages import Output, pack_floats, pack_ids
from dllm_protocol.pricing import RowCounts, RowPrices
from dllm_protocol.probing.questions import (
    QUESTION_LOGITS,
    QUESTION_ROWS,
    RETAINER_PPM,
    Answer,
    answer_of,
    is_due,
    judge,
    question,
    question_cost,
    question_rows,
)

SECRET, STANDBY = b"s" * 32, b"p" * 20


@given(st.binary(min_size=32, max_size=32), st.integers(0, (1 << 32) - 1), st.integers(1, 1 << 31))
def test_a_question_is_in_the_vocabulary_and_always_the_same(
    secret: bytes, number: int, vocab_size: int
) -> None:
    asked = question(secret, number, vocab_size)
    assert len(asked) == QUESTION_ROWS and all(0 <= token < vocab_size for token in asked)
    assert asked == question(secret, number, vocab_size)


def test_questions_of_other_numbers_and_secrets_are_others() -> None:
    asked = {tuple(question(SECRET, number, 32_000)) for number in range(50)}
    asked |= {tuple(question(bytes([n]) * 32, 0, 32_000)) for n in range(50)}
    assert len(asked) == 100


@pytest.mark.parametrize("window_rows", [1, 16, 64, 200])
def test_a_standby_is_asked_for_its_part_of_the_rows(window_rows: int) -> None:
    windows = 400_000 // window_rows
    asked = sum(is_due(SECRET, STANDBY, window, window_rows) for window in range(min(windows, 20_000)))
    served = min(windows, 20_000) * window_rows
    wanted = served * RETAINER_PPM / 10**6 / QUESTION_ROWS
    # Four deviations of a sum of independent draws; the secret is fixed, so this is no matter of luck.
    assert abs(asked - wanted) <= 4 * wanted**0.5 + 1


def test_turns_differ_by_secret_and_standby_and_a_huge_window_is_certain() -> None:
    windows = range(2000)
    mine = [is_due(SECRET, STANDBY, window, 64) for window in windows]
    assert mine != [is_due(SECRET, b"q" * 20, window, 64) for window in windows]
    assert mine != [is_due(b"t" * 32, STANDBY, window, 64) for window in windows]
    certain = int(Fraction(QUESTION_ROWS * 10**6, RETAINER_PPM))
    assert all(is_due(SECRET, STANDBY, window, certain) for window in windows)
    assert not any(is_due(SECRET, STANDBY, window, 0) for window in windows)


def test_a_question_counts_and_costs_as_rows_with_logits_do() -> None:
    assert question_rows() == RowCounts(0, QUESTION_ROWS, 0, 0)
    assert question_cost(RowPrices(1, 4000, 1, 1)) == 32
    assert question_cost(RowPrices(1, 1, 1, 1)) == 1
    assert question_cost(RowPrices(0, 0, 0, 0)) == 0


# --- answers


def made_answer(seed: int) -> Answer:
    """Random largest logits of random tokens."""
    chance = random.Random(seed)
    rows = []
    for _ in range(QUESTION_ROWS):
        ids = chance.sample(range(32_000), QUESTION_LOGITS)
        rows.append((ids, sorted((chance.gauss(10, 2) for _ in ids), reverse=True)))
    return tuple(rows)


def outputs_of(answer: Answer) -> list[Output]:
    return [
        Output(1, position, pack_ids(list(ids)), pack_floats(list(logits)), bytes(4))
        for position, (ids, logits) in enumerate(answer)
    ]


def test_the_same_answer_agrees() -> None:
    wanted = answer_of(outputs_of(made_answer(1)))
    found = judge(wanted, answer_of(outputs_of(made_answer(1))), "llama")
    assert found.agrees and found.comparison.is_exact


def test_a_machine_with_other_roundings_agrees() -> None:
    wanted = made_answer(1)
    chance = random.Random(2)
    near = tuple((ids, [one + chance.gauss(0, 0.1) for one in logits]) for ids, logits in wanted)
    found = judge(wanted, near, "qwen2")
    assert found.agrees and not found.comparison.is_exact
    assert found.comparison.worst.error < 0.15


def test_two_rows_of_another_choice_of_experts_agree_and_five_do_not() -> None:
    wanted, other = made_answer(1), made_answer(3)
    far = tuple(
        (ids, [fmean(logits) + 2.5 * (one - fmean(logits)) for one in logits]) for ids, logits in wanted
    )
    assert judge(wanted, (*far[:2], *wanted[2:]), "llama").agrees
    assert not judge(wanted, (*far[:5], *wanted[5:]), "llama").agrees
    assert not judge(wanted, other, "llama").agrees
    # A model that has no experts has no such rows.
    assert not judge(wanted, (*far[:1], *wanted[1:]), "qwen3").agrees


@pytest.mark.parametrize("value", [0.0, 10.0])
def test_made_up_answers_do_not_agree(value: float) -> None:
    """Of one who knows the tokens of the question but not the weights: the right tokens even, and flat logits."""
    wanted = made_answer(1)
    flat = tuple((ids, [value] * len(ids)) for ids, _ in wanted)
    assert not judge(wanted, flat, "llama").agrees
    turned = tuple((ids, list(reversed(logits))) for ids, logits in wanted)
    assert not judge(wanted, turned, "llama").agrees


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1:], "rows 0 to 7"),
        (lambda rows: [*rows, rows[0]], "rows 0 to 7"),
        (lambda rows: list(reversed(rows)), "rows 0 to 7"),
        (lambda rows: [Output(1, 0, b"", b"", bytes(4)), *rows[1:]], "no logits"),
        (lambda rows: [Output(1, 0, bytes(8), bytes(4), bytes(4)), *rows[1:]], "no logits"),
        (lambda rows: [Output(1, 0, bytes(3), bytes(4), bytes(4)), *rows[1:]], "32-bit|four|bytes"),
    ],
)
def test_what_is_no_answer_is_refused(change: object, words: str) -> None:
    with pytest.raises(MalformedBytes, match=words):
        answer_of(change(outputs_of(made_answer(1))))  # type: ignore[operator]  # a function of a list
