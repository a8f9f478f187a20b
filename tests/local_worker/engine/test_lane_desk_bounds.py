"""Lanes that begin and end, what they may fill, whom the last stage tells; and nobody waits for what will not come."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from dllm_protocol.lane import KIND_F32, KIND_HELLO, KIND_TOKEN
from dllm_protocol.messages import FORM_BF16
from local_worker.engine import lane_desk
from local_worker.engine.frames import Failure
from local_worker.engine.lane_end import MAX_UNSENT_BYTES
from local_worker.engine.lane_state import MAX_EARLY_ROWS, MAX_UNORDERED
from local_worker.engine.ring import MIN_STREAK
from local_worker.hidden_form import pack
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
    new_lane,
)

STATES: list[Input] = [hidden_row(number) for number in range(3)]


def middle(*, is_ahead: bool = False) -> Bench:
    """A middle stage that holds three rows; or four, and is a fifth one ahead."""
    bench = Bench(MIDDLE)
    bench.plain(0, STATES)
    if is_ahead:
        call = bench.order(7, 3)
        for request in (7, 8):
            bench.far[IN].row(request, request - 4, hidden_row(request - 4))
            bench.hear(IN)
        assert bench.hidden(call).sent
        assert [message.request for message in bench.far[OUT].received()] == [7, 8]
        assert len(bench.model.kv[0]) == 5
    return bench


def test_an_order_that_waits_can_be_given_up() -> None:
    bench = middle()
    call = bench.order(7, 3)
    assert not bench.desk.cancel(call + 1)
    assert bench.desk.cancel(call)
    bench.tell()
    assert bench.failure(call) == (Failure.CANCELLED, 3, "cancelled before its row came")
    assert not bench.desk.cancel(call)
    # Its row comes late, and is nobody's.
    bench.far[IN].row(7, 3, hidden_row(97))
    bench.far[IN].row(8, 3, hidden_row(3))
    bench.hear(IN)
    assert len(bench.model.kv[0]) == 3
    assert bench.hidden(bench.order(8, 3)).rows.tobytes() == bench.output([*STATES, hidden_row(3)]).tobytes()


def test_another_order_over_the_same_lane_ends_the_one_that_waits() -> None:
    bench = middle()
    first, second = bench.order(7, 3), bench.order(8, 3)
    assert bench.failure(first) == (Failure.CANCELLED, 3, "another order came")
    bench.far[IN].row(8, 3, hidden_row(3))
    bench.hear(IN)
    assert bench.hidden(second).sent


def test_a_sequence_that_serves_another_session_has_nothing_of_the_old_one() -> None:
    bench = middle(is_ahead=True)
    bench.desk.forget(0)
    assert len(bench.model.kv[0]) == 4
    bench.scheduler.clear(0)
    # Neither what had come nor what comes now is decoded for whoever is there next.
    bench.plain(0, [*STATES, hidden_row(40)])
    bench.far[IN].row(8, 4, hidden_row(4))
    bench.hear(IN)
    assert len(bench.model.kv[0]) == 4
    assert bench.far[OUT].received() == []


def test_an_order_that_waits_fails_by_name_when_its_sequence_is_cleared() -> None:
    bench = middle()
    others = bench.order(7, 0, sequence=1)
    bench.desk.forget(0)
    bench.tell()
    assert others not in bench.answers
    bench.desk.forget(1)
    bench.tell()
    assert bench.failure(others)[0] is Failure.CANCELLED


def test_a_lane_that_ends_fails_the_order_that_waits_and_those_behind_it() -> None:
    bench = middle()
    call = bench.order(7, 3)
    bench.far[IN].connection.close()
    bench.hear(IN)
    assert bench.failure(call) == (Failure.CANCELLED, 3, "the lane ended: the other side closed it")
    assert (bench.down, bench.faults) == ({IN: "the other side closed it"}, [])
    assert bench.failure(bench.order(8, 3))[0] is Failure.CANCELLED
    bench.hear(IN)
    assert bench.desk.is_used, "the other lane stands"


def test_a_lane_that_the_service_gives_up_ends() -> None:
    bench = middle()
    call = bench.order(7, 3)
    bench.desk.end(IN)
    bench.desk.end(99)
    bench.tell()
    assert bench.failure(call)[0] is Failure.CANCELLED
    assert (list(bench.down), bench.faults) == ([IN], [])
    assert bench.far[IN].is_over


def test_a_row_whose_way_out_has_ended_is_answered_as_not_sent() -> None:
    bench = middle()
    bench.far[OUT].connection.close()
    bench.hear(OUT)
    call = bench.order(7, 3)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    assert not bench.hidden(call).sent
    # Nor is anything decoded ahead that could go nowhere.
    bench.far[IN].row(8, 4, hidden_row(4))
    bench.hear(IN)
    assert len(bench.model.kv[0]) == 4
    assert not bench.hidden(bench.order(8, 4)).sent


def test_a_row_ahead_whose_way_out_has_ended_since_is_answered_all_the_same() -> None:
    """The service was told of the end first, and hands on what may not have arrived."""
    bench = middle(is_ahead=True)
    bench.far[OUT].connection.close()
    bench.hear(OUT)
    assert list(bench.down) == [OUT]
    answer = bench.hidden(bench.order(8, 4, out=0, runs=False))
    rows = [*STATES, hidden_row(3), hidden_row(4)]
    assert answer.rows.tobytes() == bench.output(rows).tobytes()
    assert bench.scheduler.held_rows(0) == 5


def test_a_way_out_that_breaks_while_a_row_goes_is_told_and_ends_nothing_else() -> None:
    bench = middle()
    bench.far[OUT].connection.close()
    call = bench.order(7, 3)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    answer = bench.hidden(call)
    assert answer.sent == (OUT not in bench.down)
    assert list(bench.down) == [OUT]
    assert IN not in bench.down


def test_hidden_states_go_in_the_form_that_the_lane_has() -> None:
    bench = middle()
    far = bench.lane(5, is_dialler=True, form=FORM_BF16)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.hear(IN)
    answer = bench.hidden(bench.order(7, 3, out=5))
    (message,) = far.received()
    assert (message.kind, message.body) == (FORM_BF16, pack(answer.rows, FORM_BF16))
    bench.far[IN].send(FORM_BF16, 8, 4, pack(hidden_row(4), FORM_BF16))
    bench.hear(IN)
    short = np.frombuffer(pack(hidden_row(4), FORM_BF16), "<u2").astype(np.uint32) << 16
    rows = [*STATES, hidden_row(3), short.view(np.float32).reshape(1, WIDTH)]
    assert bench.hidden(bench.order(8, 4, out=5)).rows.tobytes() == bench.output(rows).tobytes()


def test_no_more_lanes_are_taken_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_desk, "MAX_LANES", 2)
    bench = middle()
    end, far = new_lane(3, is_dialler=False)
    bench.desk.add(end)
    bench.tell()
    assert (bench.down, bench.faults) == ({3: "2 lanes stand already"}, [])
    assert far.is_over
    bench.desk.end(IN)
    bench.lane(4, is_dialler=False)
    assert bench.up == [IN, OUT, 4]


def test_rows_that_nobody_orders_are_bounded() -> None:
    bench = middle()
    for request in range(10, 10 + 3 * MAX_EARLY_ROWS):
        bench.far[IN].row(request, 3, hidden_row(request))
    bench.hear(IN)
    newest = 9 + 3 * MAX_EARLY_ROWS
    lost = bench.order(newest - MAX_EARLY_ROWS, 3)
    assert lost not in bench.answers
    kept = bench.order(newest - MAX_EARLY_ROWS + 1, 3)
    expected = bench.output([*STATES, hidden_row(newest - MAX_EARLY_ROWS + 1)])
    assert bench.hidden(kept).rows.tobytes() == expected.tobytes()


def test_who_sends_without_end_what_nobody_orders_is_cut_off() -> None:
    bench = middle()
    for request in range(10, 10 + MAX_UNORDERED):
        bench.far[IN].row(request, 3, hidden_row(request))
        bench.hear(IN)
    bench.order(9, 3)  # who is ordered from may begin anew
    for request in range(100, 100 + MAX_UNORDERED):
        bench.far[IN].row(request, 3, hidden_row(request))
        bench.hear(IN)
    assert not bench.down
    bench.far[IN].row(999, 3, hidden_row(9))
    bench.hear(IN)
    assert bench.faults == [IN] and "nobody had ordered" in bench.down[IN]


def test_a_row_that_is_longer_than_any_of_the_model_is_not_kept() -> None:
    bench = middle()
    bench.far[IN].send(KIND_F32, 12, 3, bytes(4 * WIDTH + 1))
    bench.hear(IN)
    assert bench.faults == [IN]
    assert bench.down[IN] == f"a row of {4 * WIDTH + 1} bytes came, the model's have {4 * WIDTH} at most"


@pytest.mark.parametrize(("lane", "kind"), [(OUT, 1), (OUT, 3), (OUT, KIND_HELLO), (IN, KIND_HELLO)])
def test_what_may_not_come_that_way_ends_the_lane(lane: int, kind: int) -> None:
    """Nobody takes orders from the stage behind, and one hello is enough."""
    bench = middle()
    bench.far[lane].send(kind, 7, 3, hidden_row(3).tobytes())
    bench.hear(lane)
    assert (bench.down, bench.faults) == ({lane: f"a message of kind {kind} came that way"}, [lane])
    assert len(bench.model.kv[0]) == 3


def test_what_came_before_something_forbidden_is_still_decoded() -> None:
    bench = middle()
    call = bench.order(7, 3)
    bench.far[IN].row(7, 3, hidden_row(3))
    bench.far[IN].send(KIND_HELLO, 0, 0)
    bench.hear(IN)
    assert bench.hidden(call).rows.tobytes() == bench.output([*STATES, hidden_row(3)]).tobytes()
    assert list(bench.down) == [IN]


def last_behind(rows: int) -> Bench:
    """A last stage that has answered so many rows in a row, requests 7 and so on."""
    bench = Bench(LAST)
    bench.plain(0, STATES)
    for number in range(rows):
        bench.far[IN].row(7 + number, 3 + number, hidden_row(3 + number))
        bench.hear(IN)
        bench.order(7 + number, 3 + number)
    return bench


def test_the_first_stage_is_told_the_likeliest_token_after_as_many_rows_as_it_takes() -> None:
    assert last_behind(MIN_STREAK).far[OUT].received() == []
    bench = last_behind(MIN_STREAK + 1)
    (message,) = bench.far[OUT].received()
    rows = [hidden_row(number) for number in range(3 + MIN_STREAK + 1)]
    assert (message.kind, message.request, message.position) == (KIND_TOKEN, 8 + MIN_STREAK, 4 + MIN_STREAK)
    assert message.token == int(bench.output(rows).argmax())


def test_a_row_that_was_decoded_ahead_is_told_of_when_it_is_ordered_and_not_before() -> None:
    bench = last_behind(MIN_STREAK + 1)
    bench.far[OUT].received()
    request, position = 8 + MIN_STREAK, 4 + MIN_STREAK
    bench.far[IN].row(request, position, hidden_row(position))
    bench.hear(IN)
    assert len(bench.model.kv[0]) == position + 1
    assert bench.far[OUT].received() == []
    bench.order(request, position, runs=False)
    assert [message.request for message in bench.far[OUT].received()] == [request + 1]


def test_nothing_is_told_where_somebody_else_is_about_to_ask() -> None:
    bench = last_behind(MIN_STREAK)
    bench.about = {0, 1}
    bench.far[IN].row(7 + MIN_STREAK, 3 + MIN_STREAK, hidden_row(3 + MIN_STREAK))
    bench.hear(IN)
    assert bench.rows(bench.order(7 + MIN_STREAK, 3 + MIN_STREAK)).rows
    assert bench.far[OUT].received() == []


def test_a_decode_ahead_that_fails_is_nobodys_failure() -> None:
    bench = Bench(FIRST)
    bench.plain(0, [1, 2, 3])
    bench.order(7, 3, 4)
    bench.model.broken = True
    bench.far[IN].token(8, 4, 9)
    bench.hear(IN)
    tried = bench.model.decodes
    bench.far[IN].token(8, 4, 9)
    bench.hear(IN)
    assert bench.model.decodes == tried, "once is enough"
    bench.model.broken = False
    assert len(bench.model.kv[0]) == 4
    assert bench.hidden(bench.order(8, 4, 9)).rows.tobytes() == bench.output([1, 2, 3, 4, 9]).tobytes()


def test_nothing_is_decoded_ahead_beyond_the_context() -> None:
    bench = Bench(FIRST, context_rows=4)
    bench.plain(0, [1, 2, 3])
    bench.order(7, 3, 4)
    bench.far[IN].token(8, 4, 9)
    bench.hear(IN)
    assert len(bench.model.kv[0]) == 4
    assert bench.failure(bench.order(8, 4, 9))[0] is Failure.CONTEXT_FULL


def test_a_poll_names_lanes_that_something_came_over_and_is_woken_by_the_connection() -> None:
    bench = middle()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert bench.desk.poll(ours, 0) == []
        bench.far[IN].row(7, 3, hidden_row(3))
        assert [number for number, _ in bench.desk.poll(ours, 5)] == [IN]
        bench.hear(IN)
        assert bench.desk.poll(ours, 0) == []
        theirs.send(b"x")
        assert bench.desk.poll(ours, None) == []
        ours.recv(1)
        bench.desk.end(IN)
        bench.lane(9, is_dialler=False)
        bench.far[9].row(7, 3, hidden_row(3))
        assert [number for number, _ in bench.desk.poll(ours, 5)] == [9]


def test_a_lane_whose_other_side_reads_nothing_is_flushed_when_it_does_and_ends_beyond_a_bound() -> None:
    bench, count = Bench(FIRST), 2000
    bench.plain(0, [1])
    for request in range(1, count + 1):
        assert bench.hidden(bench.order(request, 1, 5)).sent
    received = bench.far[OUT].received()
    assert 0 < len(received) < count, "the rest is not in the socket yet"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        while [number for number, _ in bench.desk.poll(ours, 0)] == [OUT]:
            bench.desk.flush(OUT)
            received += bench.far[OUT].received()
    assert [message.request for message in received] == list(range(1, count + 1))
    while OUT not in bench.down:
        request += 1
        answer = bench.hidden(bench.order(request, 1, 5))
        assert request < MAX_UNSENT_BYTES
    assert not answer.sent
    assert "bytes unread" in bench.down[OUT]
    assert not bench.faults, "whoever is slow has sent nothing wrong"


def test_whoever_told_a_wrong_token_is_not_listened_to_before_a_run_of_right_ones() -> None:
    bench = Bench(FIRST)
    bench.plain(0, [1, 2, 3])
    bench.order(7, 3, 4)
    bench.far[IN].token(8, 4, 9)
    bench.hear(IN)
    bench.order(9, 4, 5)  # the client chose another one
    request, position = 9, 4
    for _ in range(MIN_STREAK):
        decodes = bench.model.decodes
        bench.far[IN].token(request + 1, position + 1, 6)
        bench.hear(IN)
        assert bench.model.decodes == decodes
        request, position = request + 1, position + 1
        bench.order(request, position, 6)
    decodes = bench.model.decodes
    bench.far[IN].token(request + 1, position + 1, 6)
    bench.hear(IN)
    assert bench.model.decodes == decodes + 1
