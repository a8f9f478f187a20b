"""Rows over lanes are the rows that were ordered, whatever comes over them; counted on a model that is a ledger."""

from __future__ import annotations

import numpy as np
import pytest

from dllm_protocol.lane import KIND_F32, LaneMessage
from local_worker.engine.frames import Failure
from local_worker.engine.lane_frames import NO_TOKEN
from local_worker.engine.messages import Hidden
from local_worker.engine.role import Role
from tests.local_worker.engine.lane_bench import (
    FIRST,
    IN,
    LAST,
    MIDDLE,
    OUT,
    WIDTH,
    Bench,
    Input,
    hidden_row,
)

TOKENS: list[Input] = [1, 2, 3]
STATES: list[Input] = [hidden_row(number) for number in range(3)]


def middle() -> Bench:
    """A middle stage that holds three rows."""
    bench = Bench(MIDDLE)
    bench.plain(0, STATES)
    return bench


def last() -> Bench:
    bench = Bench(LAST)
    bench.plain(0, STATES)
    return bench


def first_behind_a_row() -> Bench:
    """A first stage that holds four rows, the last of them ordered as request 7."""
    bench = Bench(FIRST)
    bench.plain(0, TOKENS)
    bench.order(7, 3, 4)
    bench.far[OUT].received()
    return bench


def behind_a_row(bench: Bench) -> Bench:
    """Another stage that holds a fourth row, ordered as request 7."""
    bench.order(7, 3)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    bench.far[OUT].received()
    assert len(bench.model.kv[0]) == 4
    return bench


def guessed(bench: Bench, token: int = 9) -> None:
    """The last stage says what is likeliest behind request 7."""
    bench.far[IN].token(8, 4, token)
    bench.hear(IN)


def f32(request: int, position: int, row: Hidden) -> LaneMessage:
    return LaneMessage(KIND_F32, request, position, row.tobytes())


def test_a_row_that_comes_before_its_order_waits_for_it() -> None:
    bench = middle()
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    assert len(bench.model.kv[0]) == 3
    answer = bench.hidden(bench.order(7, 3))
    expected = bench.output([*STATES, hidden_row(3)])
    assert answer.rows.tobytes() == expected.tobytes()
    assert (answer.sent, answer.last, answer.held_rows, answer.first_position) == (True, True, 4, 3)
    assert bench.far[OUT].received() == [f32(7, 3, expected)]


def test_an_order_that_comes_before_its_row_waits_for_it() -> None:
    bench = middle()
    call = bench.order(7, 3)
    assert call not in bench.answers
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    expected = bench.output([*STATES, hidden_row(3)])
    assert bench.hidden(call).rows.tobytes() == expected.tobytes()
    assert bench.far[OUT].received() == [f32(7, 3, expected)]


def test_the_last_stage_answers_with_logits() -> None:
    bench = last()
    call = bench.order(7, 3)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    (row,) = bench.rows(call).rows
    expected = bench.output([*STATES, hidden_row(3)])
    assert (row.position, int(row.ids[0])) == (3, int(expected.argmax()))
    assert row.logits.tobytes() == expected[row.ids].tobytes()


def test_a_row_for_an_earlier_request_is_nobodys() -> None:
    bench = middle()
    for request in (5, 6):
        bench.far[IN].row(request, 3, hidden_row(90))
    call = bench.order(7, 3)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    assert bench.hidden(call).rows.tobytes() == bench.output([*STATES, hidden_row(3)]).tobytes()


def test_a_row_for_a_later_request_waits() -> None:
    bench = middle()
    call = bench.order(7, 3)
    bench.far[IN].row(9, 3, hidden_row(3))
    bench.hear(IN)
    assert call not in bench.answers
    assert bench.desk.cancel(call)
    answer = bench.hidden(bench.order(9, 3))
    assert answer.rows.tobytes() == bench.output([*STATES, hidden_row(3)]).tobytes()


@pytest.mark.parametrize("order_first", [True, False])
def test_a_row_at_another_position_ends_the_lane_and_fails_the_order_by_name(order_first: bool) -> None:
    bench = middle()
    if order_first:
        call = bench.order(7, 3)
    bench.far[IN].row(7, 4, hidden_row(3))
    bench.hear(IN)
    if not order_first:
        call = bench.order(7, 3)
    words = "row 4 came, row 3 was awaited"
    assert bench.failure(call) == (Failure.MISLED, 3, f"the lane ended: {words}")
    assert (bench.down, bench.faults) == ({IN: words}, [IN])
    assert bench.far[IN].is_over
    assert len(bench.model.kv[0]) == 3


UNUSABLE = {
    "no numbers": np.full((1, WIDTH), np.nan, np.float32),
    "huge": np.full((1, WIDTH), 1e30, np.float32),
    "narrow": np.ones((1, WIDTH - 1), np.float32),
}


@pytest.mark.parametrize("order_first", [True, False])
@pytest.mark.parametrize("what", UNUSABLE)
def test_a_row_that_is_unusable_ends_the_lane_and_fails_the_order_by_name(
    what: str, order_first: bool
) -> None:
    bench = middle()
    if order_first:
        call = bench.order(7, 3)
    bench.far[IN].row(7, 3, UNUSABLE[what])
    bench.hear(IN)
    if not order_first:
        call = bench.order(7, 3)
    assert bench.faults == [IN]
    assert len(bench.model.kv[0]) == 3
    assert call in bench.answers, "whoever waits has to hear of it"
    assert bench.failure(call) == (Failure.MISLED, 3, f"the lane ended: {bench.down[IN]}")


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_unusable_row_behind_the_newest_order_ends_the_lane(what: str) -> None:
    bench = behind_a_row(middle())
    bench.far[IN].row(8, 4, UNUSABLE[what])
    bench.hear(IN)
    assert bench.faults == [IN]
    assert len(bench.model.kv[0]) == 4


def test_a_token_for_a_stage_that_takes_hidden_states_ends_the_lane() -> None:
    bench = behind_a_row(middle())
    guessed(bench)
    assert bench.faults == [IN]
    assert len(bench.model.kv[0]) == 4


def test_hidden_states_for_a_stage_that_takes_tokens_never_reach_the_model() -> None:
    """The last stage is a stranger: what it sends must not end an engine that serves others as well."""
    bench = first_behind_a_row()
    bench.far[IN].row(8, 4, hidden_row(4))
    bench.hear(IN)
    assert bench.faults == [IN]
    assert len(bench.model.kv[0]) == 4
    expected = bench.output([*TOKENS, 4, 5])
    assert bench.hidden(bench.order(9, 4, 5)).rows.tobytes() == expected.tobytes()


@pytest.mark.parametrize("token", [40, 1 << 31, (1 << 32) - 1])
def test_a_likeliest_token_that_the_model_does_not_know_is_not_decoded(token: int) -> None:
    bench = first_behind_a_row()
    guessed(bench, token)
    assert len(bench.model.kv[0]) == 4
    assert bench.hidden(bench.order(9, 4, 5)).sent


def test_the_likeliest_token_is_decoded_ahead_and_handed_on_before_its_order() -> None:
    bench = first_behind_a_row()
    guessed(bench)
    expected = bench.output([*TOKENS, 4, 9])
    assert bench.far[OUT].received() == [f32(8, 4, expected)]
    assert (bench.scheduler.held_rows(0), len(bench.model.kv[0])) == (4, 5)
    decodes = bench.model.decodes
    answer = bench.hidden(bench.order(8, 4, 9, runs=False))
    assert answer.rows.tobytes() == expected.tobytes()
    assert (answer.sent, answer.last, answer.held_rows, answer.first_position) == (True, True, 5, 4)
    assert not bench.scheduler.busy
    assert bench.model.decodes == decodes
    assert bench.far[OUT].received() == [], "it went once"
    assert bench.scheduler.held_rows(0) == 5


def test_an_order_with_the_number_behind_takes_the_guess_back() -> None:
    bench = first_behind_a_row()
    guessed(bench)
    bench.far[OUT].received()
    answer = bench.hidden(bench.order(9, 4, 5))
    expected = bench.output([*TOKENS, 4, 5])
    assert answer.rows.tobytes() == expected.tobytes()
    assert bench.far[OUT].received() == [f32(9, 4, expected)]
    assert len(bench.model.kv[0]) == 5


def test_another_token_under_the_same_number_is_refused() -> None:
    """The stage behind has the row of the other token under this number, and would go on with it."""
    bench = first_behind_a_row()
    guessed(bench)
    failure, held, words = bench.failure(bench.order(8, 4, 5))
    assert (failure, held) == (Failure.MISLED, 4)
    assert "another row" in words
    assert len(bench.model.kv[0]) == 4
    assert bench.hidden(bench.order(10, 4, 5)).rows.tobytes() == bench.output([*TOKENS, 4, 5]).tobytes()


def test_another_token_under_the_same_number_is_refused_though_the_guess_was_taken_back_for_somebody_else() -> (
    None
):
    """What was handed on under a number stays handed on, however long it stands in the KV cache here."""
    bench = first_behind_a_row()
    guessed(bench)
    bench.lane(11, is_dialler=False)
    bench.lane(12, is_dialler=True)
    bench.order(70, 0, 6, sequence=1, into=11, out=12)
    bench.far[11].token(71, 1, 7)
    bench.hear(11)
    assert bench.failure(bench.order(8, 4, 5))[0] is Failure.MISLED


def test_a_guess_that_was_taken_back_for_somebody_else_is_decoded_again_when_ordered() -> None:
    bench = first_behind_a_row()
    guessed(bench)
    bench.lane(11, is_dialler=False)
    bench.lane(12, is_dialler=True)
    bench.order(70, 0, 6, sequence=1, into=11, out=12)
    bench.far[11].token(71, 1, 7)
    bench.hear(11)
    assert (len(bench.model.kv[0]), len(bench.model.kv[1])) == (4, 2)
    assert bench.hidden(bench.order(8, 4, 9)).rows.tobytes() == bench.output([*TOKENS, 4, 9]).tobytes()
    answer = bench.hidden(bench.order(71, 1, 7, sequence=1, into=11, out=12, runs=False))
    assert answer.rows.tobytes() == bench.output([6, 7]).tobytes()


def test_a_middle_stage_decodes_ahead_and_answers_on_the_order() -> None:
    bench = behind_a_row(middle())
    bench.far[IN].row(8, 4, hidden_row(4))
    bench.hear(IN)
    expected = bench.output([*STATES, hidden_row(3), hidden_row(4)])
    assert bench.far[OUT].received() == [f32(8, 4, expected)]
    assert bench.scheduler.held_rows(0) == 4
    decodes = bench.model.decodes
    answer = bench.hidden(bench.order(8, 4, runs=False))
    assert (answer.rows.tobytes(), answer.sent) == (expected.tobytes(), True)
    assert bench.model.decodes == decodes
    # A row that the client did not choose is nobody's.
    bench.far[IN].row(9, 5, hidden_row(95))
    bench.far[IN].row(10, 5, hidden_row(5))
    bench.hear(IN)
    answer = bench.hidden(bench.order(10, 5))
    rows = [*STATES, *map(hidden_row, (3, 4, 5))]
    assert answer.rows.tobytes() == bench.output(rows).tobytes()


def test_the_last_stage_decodes_ahead_and_says_what_it_would_have_said_in_turn() -> None:
    answers = []
    for is_early in (True, False):
        bench = behind_a_row(last())
        if is_early:
            bench.far[IN].row(8, 4, hidden_row(4))
            bench.hear(IN)
            assert len(bench.model.kv[0]) == 5
            bench.plain(0, STATES, sequence=1)  # writes over what the model gave out
            call = bench.order(8, 4, runs=False)
        else:
            call = bench.order(8, 4)
            bench.far[IN].row(8, 4, hidden_row(4))
            bench.hear(IN)
        (row,) = bench.rows(call).rows
        answers.append((row.position, row.ids.tolist(), row.logits.tobytes(), row.logsumexp))
        assert (bench.rows(call).held_rows, bench.scheduler.held_rows(0)) == (5, 5)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("role", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("why", ["a job waits", "another sequence is about to ask"])
def test_nothing_is_decoded_ahead_where_somebody_would_wait(role: Role, why: str) -> None:
    bench = first_behind_a_row() if role is FIRST else behind_a_row(middle() if role is MIDDLE else last())
    if why == "a job waits":
        bench.plain(0, TOKENS if role is FIRST else STATES, sequence=1, runs=False)
    else:
        bench.about = {0, 1}
    if role is FIRST:
        bench.far[IN].token(8, 4, 9)
    else:
        bench.far[IN].row(8, 4, hidden_row(4))
    decodes = bench.model.decodes
    bench.hear(IN, runs=False)
    assert bench.model.decodes == decodes
    bench.run()
    call = bench.order(8, 4, 9 if role is FIRST else NO_TOKEN)
    assert bench.scheduler.held_rows(0) == 5
    if role is LAST:
        assert len(bench.rows(call).rows) == 1
    else:
        assert bench.hidden(call).sent


def test_no_stage_is_more_than_one_row_ahead() -> None:
    bench = first_behind_a_row()
    guessed(bench)
    bench.far[IN].token(9, 5, 10)
    bench.hear(IN)
    assert len(bench.model.kv[0]) == 5
    call = bench.order(8, 4, 9, runs=False)
    assert bench.hidden(call).sent
    # Now the row behind has its turn.
    assert len(bench.model.kv[0]) == 6
    assert [message.request for message in bench.far[OUT].received()] == [8, 9]
    assert bench.hidden(bench.order(9, 5, 10, runs=False)).sent


def test_a_request_that_goes_over_no_lane_voids_what_was_decoded_ahead() -> None:
    bench = first_behind_a_row()
    guessed(bench)
    answer = bench.hidden(bench.plain(4, [5, 6]))
    assert answer.rows[-1].tobytes() == bench.output([*TOKENS, 4, 5, 6]).tobytes()
    assert len(bench.model.kv[0]) == 6
    assert bench.hidden(bench.order(10, 6, 7)).rows.tobytes() == bench.output([*TOKENS, 4, 5, 6, 7]).tobytes()
