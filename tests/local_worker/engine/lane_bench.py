"""A stage's engine without llama.cpp: real desk, scheduler and lanes' ends around a model that is a ledger."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Sequence

import numpy as np

from dllm_protocol.lane import KIND_F32, KIND_HELLO, KIND_TOKEN, LaneMessage, LaneStream, token_body
from dllm_protocol.messages import FORM_F32
from dllm_protocol.sealing import SealedStream
from local_worker.engine.frames import Failure, FrameReader, Kind
from local_worker.engine.hidden import HiddenAnswer, read_hidden
from local_worker.engine.lane_desk import LaneDesk
from local_worker.engine.lane_end import LaneEnd
from local_worker.engine.lane_frames import NO_TOKEN, LaneOrder, NewLane, read_down
from local_worker.engine.messages import (
    DecodeRequest,
    Hidden,
    Ids,
    Logits,
    RowsAnswer,
    Ticket,
    read_failure,
    read_rows,
)
from local_worker.engine.role import Role
from local_worker.engine.rows import BatchFailed, Rows
from local_worker.engine.scheduler import Scheduler

WIDTH, VOCABULARY = 8, 40
FIRST, MIDDLE, LAST = Role(0, 1, 3), Role(1, 2, 3), Role(2, 3, 3)
IN, OUT = 1, 2
TOP_K = 5
Input = int | Hidden
Answer = HiddenAnswer | RowsAnswer | tuple[Failure, int, str]


def hidden_row(number: int) -> Hidden:
    """A hidden state that is like no other [1, WIDTH]."""
    return np.random.default_rng([17, number]).standard_normal((1, WIDTH)).astype(np.float32)


def array_of(rows: Sequence[Input]) -> Ids | Hidden:
    """Rows as a request has them: token ids, or hidden states."""
    if isinstance(rows[0], int):
        return np.array(rows, dtype=np.int32)
    return np.concatenate([row for row in rows if not isinstance(row, int)])


class Chunk:
    """A decoder whose outputs depend on every row before them, and which checks where rows go, and what they are."""

    vocab_size, n_embd, batch_rows, sequences = VOCABULARY, WIDTH, 256, 3

    def __init__(self, role: Role, context_rows: int = 400) -> None:
        self.role = role
        self.context_rows = context_rows
        self.kv: list[list[bytes]] = [[] for _ in range(self.sequences)]
        self.decodes = 0
        self.broken = False
        self._room = np.zeros((self.batch_rows, WIDTH if role.gives_hidden else VOCABULARY), np.float32)

    def decode(self, parts: Sequence[Rows]) -> list[Logits]:
        self.decodes += 1
        for part in parts:
            assert (part.inputs.ndim == 2) == self.role.takes_hidden, "rows of a kind that this chunk has not"
            kv = self.kv[part.sequence]
            assert len(kv) == part.first_position, "a row in the wrong place"
            assert len(kv) + len(part.inputs) <= self.context_rows
            kv += [row.tobytes() for row in part.inputs]
        if self.broken:
            raise BatchFailed("no room")
        self._room[:] = np.nan
        found, at = [], 0
        for part in parts:
            rows = self._outputs(part)
            # As llama.cpp does: views that the next computation writes over.
            self._room[at : at + len(rows)] = rows
            found.append(rows if self.role.gives_hidden else self._room[at : at + len(rows)])
            at += len(rows)
        return found

    def _outputs(self, part: Rows) -> Logits:
        kv = self.kv[part.sequence]
        count = len(part.inputs) if self.role.gives_hidden else part.outputs
        return np.array([self.output(kv[: len(kv) - back]) for back in reversed(range(count))])

    def output(self, kv: Sequence[bytes]) -> Logits:
        """What comes out behind these rows."""
        digest = hashlib.sha256(b"".join((bytes([self.role.first_layer]), *kv))).digest()
        width = WIDTH if self.role.gives_hidden else VOCABULARY
        chance = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return chance.standard_normal(width).astype(np.float32)

    def truncate(self, sequence: int, rows: int) -> bool:
        del self.kv[sequence][rows:]
        return True


class Far:
    """The other end of a lane, driven by hand."""

    def __init__(self, connection: socket.socket, stream: SealedStream) -> None:
        self.connection = connection
        connection.setblocking(False)
        self._stream = LaneStream(stream)

    def send(self, kind: int, request: int, position: int, body: bytes = b"") -> None:
        self.connection.sendall(self._stream.pack(kind, request, position, body))

    def row(self, request: int, position: int, row: Hidden) -> None:
        self.send(KIND_F32, request, position, row.tobytes())

    def token(self, request: int, position: int, token: int) -> None:
        self.send(KIND_TOKEN, request, position, token_body(token))

    def received(self) -> list[LaneMessage]:
        """What has come since the last time."""
        found: list[LaneMessage] = []
        with contextlib.suppress(BlockingIOError):
            while data := self.connection.recv(1 << 16):
                found += self._stream.feed(data)
        return found

    @property
    def is_over(self) -> bool:
        """Whether the desk hung up."""
        try:
            return self.connection.recv(1 << 16) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


def new_lane(number: int, *, is_dialler: bool, form: int = FORM_F32) -> tuple[LaneEnd, Far]:
    """Both ends; nothing but a dialler's hello has been said."""
    near, far = socket.socketpair()
    near_key, far_key = bytes([number % 256]) * 32, bytes([number % 256, 1]) * 16
    state = SealedStream(near_key, far_key).hand_over()
    end = LaneEnd(near, NewLane(number, form, is_dialler, state))
    return end, Far(far, SealedStream(far_key, near_key))


class Bench:
    """One stage's engine, driven as the server drives it."""

    def __init__(self, role: Role, *, lanes: bool = True, context_rows: int = 400) -> None:
        self.model = Chunk(role, context_rows)
        self.scheduler = Scheduler(self.model)
        self.about: set[int] = set()
        """Sequences that are about to ask."""
        self.desk = LaneDesk(self.scheduler, WIDTH, lambda one: not self.about - {one}, role)
        self.answers: dict[int, Answer] = {}
        self.up: list[int] = []
        self.down: dict[int, str] = {}
        """Lanes that ended, and why."""
        self.faults: list[int] = []
        """Those of them that ended by what the other side sent."""
        self.far: dict[int, Far] = {}
        self._call = 0
        if lanes:
            self.lane(IN, is_dialler=False)
            self.lane(OUT, is_dialler=True)

    def lane(self, number: int, *, is_dialler: bool, form: int = FORM_F32) -> Far:
        """A lane that stands."""
        end, far = new_lane(number, is_dialler=is_dialler, form=form)
        self.far[number] = far
        self.desk.add(end)
        far.send(KIND_HELLO, 0, 0)
        self.hear(number)
        assert [message.kind for message in far.received()] == [KIND_HELLO]
        return far

    def hear(self, number: int, *, runs: bool = True) -> None:
        """A lane is looked at."""
        self._submit(self.desk.hear(number), runs)

    def order(
        self,
        request: int,
        position: int,
        token: int = NO_TOKEN,
        *,
        sequence: int = 0,
        runs: bool = True,
        into: int = IN,
        out: int = OUT,
    ) -> int:
        """An order comes: its call."""
        self._call += 1
        ticket = Ticket(request, into, out)
        order = LaneOrder(self._call, sequence, position, TOP_K, ticket, token)
        self._submit(self.desk.order(order), runs)
        if self.desk.is_met:
            self.desk.go_on(order)
        return self._call

    def plain(
        self,
        position: int,
        rows: Sequence[Input],
        *,
        sequence: int = 0,
        wants_all: bool = False,
        runs: bool = True,
    ) -> int:
        """A request that goes over no lane."""
        self._call += 1
        self.desk.others(sequence)
        request = DecodeRequest(self._call, sequence, position, TOP_K, wants_all, array_of(rows))
        self._submit([request], runs)
        return self._call

    def _submit(self, requests: list[DecodeRequest], runs: bool) -> None:
        for request in requests:
            self._note(self.scheduler.submit(request))
        if runs:
            self.run()
        self.tell()

    def run(self) -> None:
        """Decode all that waits."""
        while self.scheduler.busy:
            self._note(self.scheduler.step())
        self.tell()

    def tell(self) -> None:
        """Take what the desk says to the service."""
        self._note(self.desk.said())

    def _note(self, frames: list[bytes]) -> None:
        for kind, number, body in FrameReader().feed(b"".join(frames)):
            if kind is Kind.LANE_UP:
                self.up.append(number)
            elif kind is Kind.LANE_DOWN:
                assert number not in self.down, "a lane ends once"
                self.down[number], is_fault = read_down(body)
                self.faults += [number] * is_fault
            else:
                assert number not in self.answers, "a call is answered once"
                self.answers[number] = _read(kind, body)

    def hidden(self, call: int) -> HiddenAnswer:
        answer = self.answers[call]
        assert isinstance(answer, HiddenAnswer), answer
        return answer

    def rows(self, call: int) -> RowsAnswer:
        answer = self.answers[call]
        assert isinstance(answer, RowsAnswer), answer
        return answer

    def failure(self, call: int) -> tuple[Failure, int, str]:
        answer = self.answers[call]
        assert isinstance(answer, tuple), answer
        return answer

    def output(self, rows: Sequence[Input]) -> Logits:
        """What has to come out behind these rows."""
        return self.model.output(
            [np.asarray(row, np.int32 if isinstance(row, int) else None).tobytes() for row in rows]
        )


def _read(kind: Kind, body: bytes) -> Answer:
    if kind is Kind.HIDDEN:
        return read_hidden(body)
    return read_rows(body) if kind is Kind.ROWS else read_failure(body)
