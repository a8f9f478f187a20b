"""Guessing the next row changes when rows are decoded, never what comes out; counted on a model that is a ledger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_worker.engine.frames import Failure, FrameReader, Kind
from local_worker.engine.messages import DecodeRequest, Logits, RowOutput, read_failure, read_rows
from local_worker.engine.role import Role
from local_worker.engine.rows import BatchFailed, Rows
from local_worker.engine.run_ahead import MAX_STREAK, MIN_STREAK
from local_worker.engine.scheduler import Scheduler

VOCABULARY = 50


class Talker:
    """A decoder whose logits depend on every row before them, and which checks where rows go."""

    vocab_size = VOCABULARY
    batch_rows = 256
    n_embd = 8
    role = Role(0, 2, 2)
    sequences = 3

    def __init__(self, context_rows: int = 400) -> None:
        self.context_rows = context_rows
        self.kv: list[list[int]] = [[] for _ in range(self.sequences)]
        self.decodes = 0
        self.broken = False

    def decode(self, parts: Sequence[Rows]) -> list[Logits]:
        self.decodes += 1
        for part in parts:
            kv = self.kv[part.sequence]
            assert len(kv) == part.first_position
            assert len(kv) + len(part.inputs) <= self.context_rows
            kv += part.inputs.tolist()
        if self.broken:
            raise BatchFailed("no room")
        return [self._logits(self.kv[part.sequence], part.outputs) for part in parts]

    def _logits(self, kv: list[int], outputs: int) -> Logits:
        rows = [np.random.default_rng(kv[: len(kv) - back]) for back in reversed(range(outputs))]
        return np.array([row.standard_normal(VOCABULARY) for row in rows], np.float32).reshape(-1, VOCABULARY)

    def truncate(self, sequence: int, rows: int) -> bool:
        del self.kv[sequence][rows:]
        return True


class Stubborn(Talker):
    """One whose cache can only be emptied."""

    def decode(self, parts: Sequence[Rows]) -> list[Logits]:
        if any(len(self.kv[part.sequence]) != part.first_position for part in parts):
            raise BatchFailed("the place is taken")
        return super().decode(parts)

    def truncate(self, sequence: int, rows: int) -> bool:
        return rows == 0 and super().truncate(sequence, rows)


class Bench:
    """A scheduler as the server drives it, with or without guesses."""

    def __init__(self, *, guesses: bool, context_rows: int = 400, model: type[Talker] = Talker) -> None:
        self.model = model(context_rows)
        self.scheduler = Scheduler(self.model)
        self.guesses = guesses
        self.guessed = 0
        self._call = 0

    def rest(self) -> None:
        """Nothing has come from the service: the time for a guess."""
        if self.guesses and self.scheduler.may_run_ahead:
            self.scheduler.run_ahead()
            self.guessed += 1

    def ask(
        self, first: int, ids: list[int], *, sequence: int = 0, window: bool = False
    ) -> list[RowOutput] | Failure:
        """Have rows decoded to their end."""
        self._call += 1
        request = DecodeRequest(self._call, sequence, first, 8, window, np.array(ids, dtype=np.int32))
        answers = self.scheduler.submit(request)
        while self.scheduler.busy:
            answers += self.scheduler.step()
        rows: list[RowOutput] = []
        for kind, call, body in FrameReader().feed(b"".join(answers)):
            assert call == self._call
            if kind is Kind.FAILED:
                return read_failure(body)[0]
            answer = read_rows(body)
            assert answer.held_rows == (self.scheduler.held_rows(sequence) if answer.last else first + 1)
            rows += answer.rows
        self.rest()
        return rows

    def greedy(self, first: int, token: int, count: int, *, sequence: int = 0) -> int:
        """Ask for ``count`` rows, each the likeliest after the one before; returns the token after them."""
        for position in range(first, first + count):
            rows = self.ask(position, [token], sequence=sequence)
            assert isinstance(rows, list)
            token = int(rows[0].ids[0])
        return token


def warm(bench: Bench) -> int:
    """A prompt of five rows and as many likeliest tokens as it takes: the next one is guessed."""
    rows = bench.ask(0, [1, 2, 3, 4, 5])
    assert isinstance(rows, list)
    token = bench.greedy(5, int(rows[0].ids[0]), MIN_STREAK)
    assert bench.guessed == 1
    return token


def test_a_greedy_answer_needs_no_more_decodes_and_waits_for_none_of_them() -> None:
    bench = Bench(guesses=True)
    token = warm(bench)
    decodes = bench.model.decodes
    for position in range(5 + MIN_STREAK, 5 + MIN_STREAK + 50):
        request = DecodeRequest(9, 0, position, 8, False, np.array([token], dtype=np.int32))
        ((kind, _, body),) = FrameReader().feed(b"".join(bench.scheduler.submit(request)))
        assert kind is Kind.ROWS
        assert not bench.scheduler.busy
        token = int(read_rows(body).rows[0].ids[0])
        bench.rest()
    assert bench.model.decodes - decodes == 50


def test_a_guess_is_in_no_count_until_it_is_asked_for() -> None:
    bench = Bench(guesses=True)
    warm(bench)
    held = 5 + MIN_STREAK
    assert bench.scheduler.held_rows(0) == held
    assert not bench.scheduler.busy
    assert len(bench.model.kv[0]) == held + 1
    assert bench.ask(held + 1, [1]) is Failure.DECODE_REFUSED


def test_a_wrong_guess_leaves_no_row_and_asks_for_a_longer_streak() -> None:
    bench = Bench(guesses=True)
    token = warm(bench)
    held = 5 + MIN_STREAK
    rows = bench.ask(held, [(token + 1) % VOCABULARY])
    assert isinstance(rows, list)
    assert len(bench.model.kv[0]) == held + 1
    token = bench.greedy(held + 1, int(rows[0].ids[0]), 2 * MIN_STREAK - 1)
    assert bench.guessed == 1
    token = bench.greedy(held + 2 * MIN_STREAK, token, 1)
    assert bench.guessed == 2
    # As many hits in a row bring the old patience back.
    at = held + 2 * MIN_STREAK + 1
    token = bench.greedy(at, token, 2 * MIN_STREAK)
    rows = bench.ask(at + 2 * MIN_STREAK, [(token + 1) % VOCABULARY])
    assert isinstance(rows, list)
    before = bench.guessed
    bench.greedy(at + 2 * MIN_STREAK + 1, int(rows[0].ids[0]), 2 * MIN_STREAK)
    assert bench.guessed > before


def test_endless_misses_end_at_the_longest_streak() -> None:
    bench = Bench(guesses=True, context_rows=2_000)
    token = warm(bench)
    at = 5 + MIN_STREAK
    for _ in range(8):
        rows = bench.ask(at, [(token + 1) % VOCABULARY])
        assert isinstance(rows, list)
        before = bench.guessed
        token, at = int(rows[0].ids[0]), at + 1
        while bench.guessed == before:
            token, at = bench.greedy(at, token, 1), at + 1
            assert at < 2_000 - MAX_STREAK


def test_who_is_not_alone_is_not_guessed_for() -> None:
    bench = Bench(guesses=True)
    tokens = []
    for sequence in (0, 1):
        rows = bench.ask(0, [sequence + 1], sequence=sequence)
        assert isinstance(rows, list)
        tokens.append(int(rows[0].ids[0]))
    for position in range(1, 60):
        for sequence in (0, 1):
            tokens[sequence] = bench.greedy(position, tokens[sequence], 1, sequence=sequence)
    assert bench.guessed == 0


def test_somebody_elses_request_takes_the_guess_back() -> None:
    bench = Bench(guesses=True)
    warm(bench)
    assert isinstance(bench.ask(0, [7, 8], sequence=2), list)
    assert len(bench.model.kv[0]) == 5 + MIN_STREAK


def test_no_guess_goes_beyond_the_context() -> None:
    bench = Bench(guesses=True, context_rows=5 + MIN_STREAK)
    rows = bench.ask(0, [1, 2, 3, 4, 5])
    assert isinstance(rows, list)
    bench.greedy(5, int(rows[0].ids[0]), MIN_STREAK)
    assert bench.guessed == 0


def test_clearing_and_a_shorter_prefix_void_the_guess() -> None:
    bench = Bench(guesses=True)
    warm(bench)
    assert isinstance(bench.ask(3, [9, 9]), list)
    assert bench.model.kv[0][:5] == [1, 2, 3, 9, 9]
    assert bench.scheduler.held_rows(0) == 5
    bench = Bench(guesses=True)
    token = warm(bench)
    assert bench.scheduler.clear(0) == []
    assert bench.model.kv[0] == []
    assert bench.ask(5 + MIN_STREAK, [token]) is Failure.DECODE_REFUSED


def test_a_guess_that_fails_is_nobodys_failure_and_the_last_one() -> None:
    bench = Bench(guesses=True)
    rows = bench.ask(0, [1, 2, 3, 4, 5])
    assert isinstance(rows, list)
    token = bench.greedy(5, int(rows[0].ids[0]), MIN_STREAK - 1)
    bench.model.broken = False
    request = DecodeRequest(99, 0, 4 + MIN_STREAK, 8, False, np.array([token], dtype=np.int32))
    bench.scheduler.submit(request)
    (_, _, body), *_ = FrameReader().feed(b"".join(bench.scheduler.step()))
    assert bench.scheduler.may_run_ahead
    bench.model.broken = True
    bench.scheduler.run_ahead()
    bench.model.broken = False
    token = int(read_rows(body).rows[0].ids[0])
    bench.greedy(5 + MIN_STREAK, token, 3 * MIN_STREAK)
    assert bench.guessed == 0


def test_a_cache_that_cannot_be_cut_costs_one_named_failure() -> None:
    bench = Bench(guesses=True, model=Stubborn)
    token = warm(bench)
    assert bench.ask(5 + MIN_STREAK, [(token + 1) % VOCABULARY]) is Failure.DECODE_FAILED
    assert bench.scheduler.held_rows(0) == 0
    rows = bench.ask(0, [1])
    assert isinstance(rows, list)
    bench.greedy(1, int(rows[0].ids[0]), 3 * MIN_STREAK)
    assert bench.guessed == 1


def test_a_window_that_begins_with_the_guess_has_only_its_other_rows_decoded() -> None:
    bench, plain = Bench(guesses=True), Bench(guesses=False)
    held = 5 + MIN_STREAK
    token = warm(bench)
    plain.ask(0, [1, 2, 3, 4, 5])
    for position in range(5, held):
        plain.ask(position, [bench.model.kv[0][position]])
    window = [token, 7, 8]
    decodes = bench.model.decodes
    rows, expected = bench.ask(held, window, window=True), plain.ask(held, window, window=True)
    assert isinstance(rows, list) and isinstance(expected, list)
    assert bench.model.decodes - decodes == 1, "one batch, and nothing guessed behind a window"
    assert [row.logits.tobytes() for row in rows] == [row.logits.tobytes() for row in expected]
    assert [row.position for row in rows] == [held, held + 1, held + 2]
    # Rows that came to nothing are cut off, and the streak goes on where it was.
    assert isinstance(bench.ask(held + 1, [int(rows[0].ids[0])]), list)
    assert bench.guessed == 2


def test_a_window_that_begins_otherwise_is_a_miss_and_leaves_no_row_of_the_guess() -> None:
    bench = Bench(guesses=True)
    token = warm(bench)
    held = 5 + MIN_STREAK
    rows = bench.ask(held, [(token + 1) % VOCABULARY, 3], window=True)
    assert isinstance(rows, list) and len(rows) == 2
    assert bench.model.kv[0][held:] == [(token + 1) % VOCABULARY, 3]
    bench.greedy(held + 2, int(rows[-1].ids[0]), 2 * MIN_STREAK)
    assert bench.guessed == 1


@pytest.mark.parametrize("obstinacy", [0.0, 0.05, 0.5])
def test_sampled_answers_are_the_same_with_and_without(obstinacy: float) -> None:
    answers = []
    for guesses in (False, True):
        bench = Bench(guesses=guesses)
        chance = np.random.default_rng(1)
        rows = bench.ask(0, [1, 2, 3])
        said = []
        for position in range(3, 303):
            assert isinstance(rows, list)
            pick = int(chance.integers(8)) if chance.random() < obstinacy else 0
            said.append((int(rows[0].ids[pick]), rows[0].logsumexp, rows[0].logits.tobytes()))
            rows = bench.ask(position, [said[-1][0]])
        answers.append(said)
        assert (bench.guessed > 0) == guesses
    assert answers[0] == answers[1]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["go", "go", "go", "window", "turn", "back", "other", "clear"]),
            st.integers(1, 30),
        ),
        max_size=12,
    )
)
def test_whatever_is_asked_the_answers_are_those_without_guesses(steps: list[tuple[str, int]]) -> None:
    said = []
    for guesses in (False, True):
        bench = Bench(guesses=guesses)
        words: list[tuple[int, float]] = []
        rows = bench.ask(0, [1])
        for what, number in steps:
            held = bench.scheduler.held_rows(0)
            if what == "clear":
                bench.scheduler.clear(0)
                rows = bench.ask(0, [number])
            elif what == "other":
                rows = bench.ask(bench.scheduler.held_rows(1), [number], sequence=1)
                assert isinstance(rows, list)
                words += [(int(row.ids[0]), row.logsumexp) for row in rows]
                rows = bench.ask(held, [number])
            elif what == "window":
                assert isinstance(rows, list)
                window = [int(rows[-1].ids[0]), *range(number)]
                rows = bench.ask(held, window, window=True) if held + len(window) < 400 else rows
            elif what == "back":
                rows = bench.ask(max(0, held - number), [number, 1])
            elif what == "turn":
                rows = bench.ask(held, [number])
            else:
                for _ in range(min(number, 399 - held)):
                    assert isinstance(rows, list)
                    rows = bench.ask(bench.scheduler.held_rows(0), [int(rows[0].ids[0])])
            assert isinstance(rows, list)
            words += [(int(row.ids[0]), row.logsumexp) for row in rows]
            assert len(bench.model.kv[0]) - bench.scheduler.held_rows(0) in (0, 1)
        said.append(words)
    assert said[0] == said[1]
