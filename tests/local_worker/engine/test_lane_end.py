"""A lane's end blocks nobody, keeps what does not go at once, and is over with the first thing that is wrong."""

from __future__ import annotations

import contextlib
import socket

import pytest

from dllm_protocol.lane import KIND_F32, KIND_HELLO, KIND_TOKEN, MAX_LANE_FRAME_BYTES, MAX_WIDTH, LaneStream
from dllm_protocol.messages import FORM_F32
from dllm_protocol.sealing import SealedStream
from local_worker.engine.lane_end import MAX_UNSENT_BYTES, LaneBroken, LaneEnd, LaneFault
from local_worker.engine.lane_frames import NewLane
from tests.local_worker.engine.lane_bench import Far, new_lane

LARGEST = bytes(4 * MAX_WIDTH)
"""The hidden state of the widest model."""


def up(*, is_dialler: bool) -> tuple[LaneEnd, Far]:
    """A lane that stands."""
    end, far = new_lane(1, is_dialler=is_dialler)
    far.send(KIND_HELLO, 0, 0)
    assert end.receive() == []
    assert end.is_up
    assert [message.kind for message in far.received()] == [KIND_HELLO]
    return end, far


def test_who_dialled_says_hello_first_and_is_up_when_the_other_side_has() -> None:
    end, far = new_lane(1, is_dialler=True)
    assert [(one.kind, one.body) for one in far.received()] == [(KIND_HELLO, b"")]
    assert end.receive() == []
    assert not end.is_up
    far.send(KIND_HELLO, 0, 0)
    assert end.receive() == []
    assert end.is_up
    assert far.received() == [], "one hello is enough"


def test_who_was_dialled_says_nothing_before_the_other_side_has() -> None:
    end, far = new_lane(1, is_dialler=False)
    assert end.receive() == []
    assert far.received() == []
    assert not end.is_up
    far.send(KIND_HELLO, 0, 0)
    far.send(KIND_F32, 7, 3, b"row")
    assert [(one.request, one.position, one.body) for one in end.receive()] == [(7, 3, b"row")]
    assert end.is_up
    assert [one.kind for one in far.received()] == [KIND_HELLO]


@pytest.mark.parametrize("is_dialler", [True, False])
def test_whoever_begins_with_something_else_is_not_heard(is_dialler: bool) -> None:
    end, far = new_lane(1, is_dialler=is_dialler)
    far.send(KIND_TOKEN, 7, 3, bytes(4))
    far.send(KIND_HELLO, 0, 0)
    with pytest.raises(LaneFault, match="it did not begin with a hello"):
        end.receive()
    assert not end.is_up


def test_messages_that_come_in_pieces_are_put_together() -> None:
    end, far = up(is_dialler=False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        real, far.connection = far.connection, ours
        far.send(KIND_F32, 7, 3, b"some bytes")
        far.send(KIND_F32, 8, 4, b"more")
        data = theirs.recv(1 << 16)
        far.connection = real
    found = []
    for number in range(len(data)):
        real.send(data[number : number + 1])
        found += end.receive()
    assert [(one.request, one.body) for one in found] == [(7, b"some bytes"), (8, b"more")]


def test_what_does_not_go_at_once_is_kept_and_sent_in_order_when_the_other_side_reads() -> None:
    end, far = up(is_dialler=True)
    count = 4
    for request in range(count):
        end.send(KIND_F32, request, 0, LARGEST)
    assert end.has_unsent
    received = far.received()
    assert len(received) < count
    while end.has_unsent:
        end.flush()
        received += far.received()
    assert [(one.request, one.body == LARGEST) for one in received] == [(one, True) for one in range(count)]
    end.send(KIND_F32, 99, 0, b"")
    assert not end.has_unsent
    assert [one.request for one in far.received()] == [99]


def test_whoever_leaves_too_much_unread_is_not_waited_for() -> None:
    end, _ = up(is_dialler=True)
    sent = 0
    with pytest.raises(LaneBroken, match=r"the other side left [0-9]+ bytes unread"):
        while sent < 4 * MAX_UNSENT_BYTES:
            end.send(KIND_F32, 0, 0, LARGEST)
            sent += len(LARGEST)
    assert sent >= MAX_UNSENT_BYTES - len(LARGEST), "so much may stay unread"


def test_flushing_where_there_is_no_room_keeps_everything() -> None:
    end, far = up(is_dialler=True)
    for request in range(4):
        end.send(KIND_F32, request, 0, LARGEST)
    for _ in range(3):
        end.flush()
    assert end.has_unsent
    received = far.received()
    while end.has_unsent:
        end.flush()
        received += far.received()
    assert [one.request for one in received] == [0, 1, 2, 3]


def test_the_end_of_the_connection_is_the_end_of_the_lane() -> None:
    end, far = up(is_dialler=False)
    far.send(KIND_F32, 7, 3, b"row")
    far.connection.close()
    assert len(end.receive()) == 1, "what came before is heard"
    with pytest.raises(LaneBroken, match="the other side closed it") as ended:
        end.receive()
    assert not isinstance(ended.value, LaneFault), "a connection may just end"


def test_sending_to_somebody_who_is_gone_ends_the_lane_by_name() -> None:
    end, far = up(is_dialler=True)
    far.connection.close()
    with pytest.raises(LaneBroken, match=r"^(EPIPE|ECONNRESET): "):
        end.send(KIND_F32, 7, 3, b"row")
    end, far = up(is_dialler=True)
    for request in range(4):
        end.send(KIND_F32, request, 0, LARGEST)
    far.connection.close()
    with pytest.raises(LaneBroken, match=r"^(EPIPE|ECONNRESET): "):
        end.flush()


def test_who_is_gone_before_the_hello_makes_no_lane() -> None:
    near, far = socket.socketpair()
    far.close()
    state = SealedStream(b"n" * 32, b"f" * 32).hand_over()
    with near, pytest.raises(LaneBroken):
        LaneEnd(near, NewLane(1, FORM_F32, True, state))


def raw(far: Far, data: bytes) -> None:
    far.connection.sendall(data)


def test_what_does_not_open_ends_the_lane() -> None:
    end, far = up(is_dialler=False)
    raw(far, (128).to_bytes(4, "little") + bytes(128))
    with pytest.raises(LaneFault, match="does not open"):
        end.receive()


def test_a_message_that_is_played_again_ends_the_lane() -> None:
    end, far = new_lane(1, is_dialler=False)
    stream = LaneStream(SealedStream(bytes([1, 1]) * 16, bytes([1]) * 32))
    hello, row = stream.pack(KIND_HELLO, 0, 0, b""), stream.pack(KIND_F32, 7, 3, b"row")
    raw(far, hello + row)
    assert [one.request for one in end.receive()] == [7]
    raw(far, row)
    with pytest.raises(LaneFault, match="does not open"):
        end.receive()


@pytest.mark.parametrize("length", [0, 63, MAX_LANE_FRAME_BYTES + 1, (1 << 32) - 1])
def test_a_length_that_no_message_has_ends_the_lane(length: int) -> None:
    end, far = up(is_dialler=False)
    raw(far, length.to_bytes(4, "little"))
    with pytest.raises(LaneFault, match=f"a frame of {length} bytes came over a lane"):
        end.receive()


def test_a_kind_that_there_is_none_of_ends_the_lane() -> None:
    end, far = up(is_dialler=False)
    far.send(KIND_TOKEN + 1, 7, 3)
    with pytest.raises(LaneFault, match="is no message"):
        end.receive()


@pytest.mark.parametrize("state", [b"", bytes(79), bytes(81)])
def test_a_state_that_is_none_makes_no_lane(state: bytes) -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(LaneBroken, match="a stream's state has"):
        LaneEnd(near, NewLane(1, FORM_F32, False, state))


def test_a_connection_over_tcp_sends_at_once_and_blocks_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dialling = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    state = SealedStream(b"n" * 32, b"f" * 32).hand_over()
    end = LaneEnd(accepted, NewLane(1, FORM_F32, False, state))
    with dialling, contextlib.closing(end):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not accepted.getblocking()
        assert end.fileno() == accepted.fileno()
        assert end.receive() == []
    assert accepted.fileno() == -1
