"""Who gets into which batch, counted in batches; the model here is a ledger that checks what reaches it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from local_worker.engine.frames import Failure, FrameReader, Kind
from local_worker.engine.messages import DecodeRequest, Logits, read_failure, read_rows
from local_worker.engine.role import Role
from local_worker.engine.rows import BatchFailed, Rows
from local_worker.engine.scheduler import SHORT_ROWS, Scheduler
from local_worker.engine.slices import CPU_SLICE_ROWS, SHARED_SLICE_ROWS, TILE_ROWS, batch_rows_for


class Ledger:
    """A decoder whose logits say which row they are of; keeps every batch."""

    def __init__(self, sequences: int = 4, context_rows: int = 4096) -> None:
        self.vocab_size = 100
        self.n_embd = 8
        self.role = Role(0, 2, 2)
        self.context_rows = context_rows
        self.sequences = sequences
        self.batch_rows = batch_rows_for(CPU_SLICE_ROWS)
        self.batches: list[list[Rows]] = []
        self.kv: list[list[int]] = [[] for _ in range(sequences)]
        self.broken = False

    def decode(self, parts: Sequence[Rows]) -> list[Logits]:
        self.batches.append(list(parts))
        assert 0 < sum(len(part.inputs) for part in parts) <= self.batch_rows
        if self.broken:
            raise BatchFailed("no room")
        for part in parts:
            assert len(self.kv[part.sequence]) == part.first_position
            self.kv[part.sequence] += part.inputs.tolist()
        return [np.full((part.outputs, 100), part.sequence, dtype=np.float32) for part in parts]

    def truncate(self, sequence: int, rows: int) -> bool:
        del self.kv[sequence][rows:]
        return True


def request(sequence: int, count: int, first: int = 0, everything: bool = False) -> DecodeRequest:
    ids = np.arange(count, dtype=np.int32) % 100
    return DecodeRequest(sequence + 1, sequence, first, 1, everything, ids)


def parsed(answers: list[bytes]) -> list[tuple[Kind, int, bytes]]:
    return FrameReader().feed(b"".join(answers))


def test_a_long_prompt_costs_a_decoder_at_most_one_slice_a_token() -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    scheduler.submit(request(0, 4000))
    position = 0
    while len(ledger.kv[0]) < 4000:
        assert scheduler.submit(request(1, 1, position)) == []
        before = len(ledger.batches)
        while not any(call == 2 for _, call, _ in parsed(scheduler.step())):
            pass
        assert len(ledger.batches) - before <= 2
        position += 1
    assert position >= 4000 // SHARED_SLICE_ROWS - 1
    slices = [part for batch in ledger.batches for part in batch if part.sequence == 0]
    assert {len(part.inputs) for part in slices[:-1]} == {SHARED_SLICE_ROWS}
    assert TILE_ROWS <= len(slices[-1].inputs) < SHARED_SLICE_ROWS + TILE_ROWS


def test_long_prompts_take_turns() -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    for sequence in range(3):
        scheduler.submit(request(sequence, 2000))
    for _ in range(9):
        scheduler.step()
        lengths = [len(kv) for kv in ledger.kv[:3]]
        assert max(lengths) - min(lengths) <= CPU_SLICE_ROWS
    assert min(len(kv) for kv in ledger.kv[:3]) > 0
    assert all(len(batch) == 1 for batch in ledger.batches), (
        "a batch of several is cut so that they fit together"
    )


@given(st.lists(st.integers(TILE_ROWS, 700), min_size=1, max_size=3), st.integers(0, 60))
def test_no_slice_of_a_prompt_is_smaller_than_a_tile_whoever_decodes_meanwhile(
    prompts: list[int], tokens: int
) -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    for sequence, rows in enumerate(prompts):
        scheduler.submit(request(sequence, rows))
    position = 0
    while scheduler.busy:
        if position < tokens and all(
            part.sequence != 3 for part in ledger.batches[-1:] and ledger.batches[-1]
        ):
            scheduler.submit(request(3, 1, position))
            position += 1
        scheduler.step()
    sizes = [len(part.inputs) for batch in ledger.batches for part in batch if part.sequence != 3]
    assert min(sizes) >= TILE_ROWS
    assert sum(sizes) == sum(prompts)


def test_decode_rows_of_neighbours_go_into_one_batch() -> None:
    ledger = Ledger(sequences=8)
    scheduler = Scheduler(ledger)
    for sequence in (5, 3, 4, 2):
        scheduler.submit(request(sequence, 1))
    answers = parsed(scheduler.step())
    assert [part.sequence for part in ledger.batches[0]] == [2, 3, 4, 5]
    assert [call for _, call, _ in answers] == [3, 4, 5, 6]
    assert scheduler.answered == [2, 3, 4, 5]
    assert not scheduler.busy


def test_who_is_no_neighbour_has_the_next_turn_with_those_who_came_meanwhile() -> None:
    ledger = Ledger(sequences=8)
    scheduler = Scheduler(ledger)
    for sequence in (5, 2, 6, 0):
        scheduler.submit(request(sequence, 1))
    scheduler.step()
    assert scheduler.answered == [5, 6], "the one that came first, and its neighbour"
    scheduler.submit(request(1, 1))
    scheduler.step()
    assert scheduler.answered == [0, 1, 2]
    assert not scheduler.busy
    assert not scheduler.has_short
    scheduler.submit(request(0, 1, first=1))
    assert scheduler.has_short


def test_a_slice_waits_for_nobody_and_answers_only_at_its_end() -> None:
    ledger = Ledger()
    ledger.batch_rows = TILE_ROWS  # else what is left of a tile goes with it
    scheduler = Scheduler(ledger)
    scheduler.submit(request(0, TILE_ROWS + SHORT_ROWS))
    assert not scheduler.has_short
    scheduler.step()
    assert scheduler.answered == []
    assert scheduler.has_short
    scheduler.step()
    assert scheduler.answered == [0]


def test_a_failed_batch_empties_its_sequences_and_no_other() -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    scheduler.submit(request(3, 5))
    scheduler.step()
    ledger.broken = True
    scheduler.submit(request(0, 5))
    ((kind, call, body),) = parsed(scheduler.step())
    assert (kind, call) == (Kind.FAILED, 1)
    assert read_failure(body) == (Failure.DECODE_FAILED, 0, "no room")
    assert (scheduler.held_rows(0), scheduler.held_rows(3)) == (0, 5)
    assert not scheduler.busy


def test_logits_that_are_no_numbers_are_a_named_failure() -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    scheduler.submit(request(0, 1))
    ledger.decode = lambda parts: [np.full((1, 100), np.nan, dtype=np.float32)]  # type: ignore[method-assign]  # stands in for a broken model
    ((kind, _, body),) = parsed(scheduler.step())
    assert kind is Kind.FAILED
    assert "not all numbers" in read_failure(body)[2]


def test_cancel_between_slices_keeps_what_was_decoded() -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    scheduler.submit(request(0, 1000))
    scheduler.step()
    ((_, _, body),) = parsed(scheduler.cancel(1))
    assert read_failure(body) == (
        Failure.CANCELLED,
        CPU_SLICE_ROWS,
        f"cancelled after {CPU_SLICE_ROWS} of 1000 rows",
    )
    assert scheduler.step() == scheduler.cancel(1) == []
    assert len(ledger.batches) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 700), st.booleans(), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    )
)
def test_every_job_is_answered_in_full_whatever_the_mix(
    jobs: list[tuple[int, int, bool, int]],
) -> None:
    ledger = Ledger()
    scheduler = Scheduler(ledger)
    wanted: dict[int, int] = {}
    got: dict[int, int] = {}

    def hear(answers: list[bytes]) -> None:
        for kind, call, body in parsed(answers):
            assert kind is Kind.ROWS
            answer = read_rows(body)
            got[call] = got.get(call, 0) + len(answer.rows)
            if answer.last:
                assert got.pop(call) == wanted.pop(call)

    for sequence, count, everything, steps in jobs:
        if sequence + 1 in wanted:
            ((_, _, body),) = parsed(scheduler.submit(request(sequence, count)))
            assert read_failure(body)[0] is Failure.BUSY
        else:
            wanted[sequence + 1] = count if everything else 1
            assert scheduler.submit(request(sequence, count, everything=everything)) == []
        for _ in range(steps):
            hear(scheduler.step())
    bound = 4 * (700 // SHORT_ROWS + 2)
    while scheduler.busy and bound:
        hear(scheduler.step())
        bound -= 1
    assert not wanted
    assert not scheduler.busy
