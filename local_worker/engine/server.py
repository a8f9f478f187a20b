"""The engine's loop: frames in, batches through the model, frames out; one thread, so nothing competes."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from local_worker.cores import usable_cores
from local_worker.engine.frames import Failure, FrameReader, FrameRefused, Kind
from local_worker.engine.gathering import Choice, Gathering
from local_worker.engine.hidden import read_forward
from local_worker.engine.lane_frames import NewLane, read_lane, read_order
from local_worker.engine.llama import LlamaModel
from local_worker.engine.messages import (
    MAX_TEXT_BYTES,
    DecodeRequest,
    failure_frame,
    read_decode,
    ready_frame,
    tokens_frame,
    vocabulary_frame,
)
from local_worker.engine.rows import BatchFailed
from local_worker.engine.scheduler import Scheduler
from local_worker.engine.words_only import WordsOnly

if TYPE_CHECKING:
    from local_worker.engine.lane_desk import LaneDesk

_READ_BYTES = 1 << 20


def groups(stages: int, is_local: bool, threads: int) -> int:
    """Into how many groups sessions are cut: one for each stage, or for as many as can compute at once.

    Args:
        is_local: whether the stages share this machine's cores.
        threads: of each.
    """
    return min(stages, max(1, usable_cores() // threads)) if is_local else stages


class Server:
    """One model served to one parent over one socket."""

    def __init__(
        self, connection: socket.socket, model: LlamaModel | WordsOnly, handed: socket.socket | None = None
    ) -> None:
        """``handed``: where connections for lanes come from the parent."""
        self._connection = connection
        self._handed = handed
        self._desk: LaneDesk | None = None
        self._model = model
        self._scheduler = Scheduler(model)
        self._reader = FrameReader()
        self._pieces: bytes | None = None
        self._next: Sequence[int] = ()
        """Whose short jobs the next batch is made of; empty leaves it to the scheduler."""
        self._gathering = Gathering(time.perf_counter, model.role.stages)

    def run(self) -> None:
        """Serve until the parent closes its end.

        Raises:
            FrameRefused: the parent speaks nonsense.
        """
        self._connection.sendall(ready_frame(self._model.info()))
        while self._hear():
            is_short, started = self._scheduler.has_short, time.perf_counter()
            if answers := self._scheduler.step(self._next):
                self._connection.sendall(b"".join(answers))
                if is_short:
                    took_s = time.perf_counter() - started
                    self._gathering.answered(self._scheduler.answered, took_s)
            self._tell()

    def _hear(self) -> bool:
        """Take in what the parent sent; waits where there is nothing to decode, or more is about to come.

        Returns:
            False when the parent closed its end.
        """
        data = self._receive()
        while data != b"":
            if data is not None:
                self._handle(data)
            if self._scheduler.busy and self._gathering.is_alone:
                self._next = ()
                return True  # nobody else is about to come
            data = self._receive_now()
            if data is not None:
                continue
            choice = self._choice()
            self._next = choice.sequences
            if not choice.wait_s:
                return True
            self._listen(choice.wait_s)
        return False

    def _choice(self) -> Choice:
        """Whose short jobs are next; nobody is waited for while a long one could go on."""
        if not self._scheduler.has_short:
            return Choice(())
        choice = self._gathering.choose(self._scheduler.short)
        return Choice(()) if choice.wait_s and self._scheduler.has_long else choice

    def _receive(self) -> bytes | None:
        """What the parent sent; waits only where there is nothing to decode. None: nothing yet, b"": its end."""
        if self._scheduler.busy:
            return self._receive_now()
        if self._scheduler.may_run_ahead:
            # Only where nobody has asked for anything yet.
            if (data := self._receive_now()) is not None:
                return data
            self._scheduler.run_ahead()
        if self._desk is None or not self._desk.is_used:
            return self._connection.recv(_READ_BYTES)
        self._listen(None)
        return None if self._scheduler.busy else self._receive_now()

    def _receive_now(self) -> bytes | None:
        if self._desk is not None and self._desk.is_used:
            self._listen(0.0)
        try:
            return self._connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _listen(self, wait_s: float | None) -> None:
        """Wait for the parent or a lane, no longer than this, and take in what lanes say."""
        desk = self._desk
        if desk is None:
            select.select([self._connection], [], [], wait_s)
            return
        for lane, events in desk.poll(self._connection, wait_s):
            if events & select.POLLOUT:
                desk.flush(lane)
            if events & ~select.POLLOUT:
                for request in desk.hear(lane):
                    self._take(request)
        self._tell()

    def _tell(self) -> None:
        """Say what came up at lanes."""
        desk = self._desk
        if desk is None:
            return
        if said := desk.said():
            self._connection.sendall(b"".join(said))
        if desk.has_changed:
            desk.has_changed = False
            self._gathering.stages = groups(self._model.role.stages, desk.is_local, self._model.threads)

    def _handle(self, data: bytes) -> None:
        for kind, call, body in self._reader.feed(data):
            for answer in self._answers(kind, call, body):
                self._connection.sendall(answer)

    def _answers(self, kind: Kind, call: int, body: bytes) -> list[bytes]:
        if kind is Kind.DECODE:
            return self._submit(read_decode(call, body))
        if kind is Kind.FORWARD:
            return self._submit(read_forward(call, body))
        if kind in (Kind.LANE_ROW, Kind.LANE, Kind.LANE_END):
            return self._lane_answers(kind, call, body)
        if kind is Kind.CANCEL:
            if self._desk is not None and self._desk.cancel(call):
                return self._desk.said()
            return self._scheduler.cancel(call)
        if kind is Kind.CLEAR and len(body) == 4:
            sequence = struct.unpack("<I", body)[0]
            self._gathering.forget(sequence)
            if self._desk is not None:
                self._desk.forget(sequence)
            return self._scheduler.clear(sequence)
        if kind in (Kind.TOKENIZE, Kind.TOKENIZE_MARKED) and len(body) <= MAX_TEXT_BYTES:
            return [self._tokenize(call, body, marked=kind is Kind.TOKENIZE_MARKED)]
        if kind is Kind.VOCABULARY:
            return [self._vocabulary(call)]
        raise FrameRefused(f"a {kind.name} of {len(body)} bytes is no request")

    def _submit(self, request: DecodeRequest) -> list[bytes]:
        if self._desk is not None:
            self._desk.others(request.sequence)
        self._gathering.asked(request.sequence)
        return self._scheduler.submit(request)

    def _take(self, request: DecodeRequest) -> None:
        """A row came over a lane, with an order for it."""
        self._gathering.asked(request.sequence)
        for answer in self._scheduler.submit(request):
            self._connection.sendall(answer)

    def _lane_answers(self, kind: Kind, call: int, body: bytes) -> list[bytes]:
        if kind is Kind.LANE:
            self._take_lane(read_lane(call, body))
        elif self._desk is None:
            if kind is Kind.LANE_ROW:
                return [failure_frame(call, Failure.CANCELLED, "there is no lane")]
        elif kind is Kind.LANE_END:
            self._desk.end(call)
        else:
            order = read_order(call, body)
            for request in self._desk.order(order):
                self._take(request)
            if self._desk.is_met:
                self._gathering.met(order.sequence)
                self._tell()
                self._desk.go_on(order)
        return [] if self._desk is None else self._desk.said()

    def _take_lane(self, lane: NewLane) -> None:
        """Take over a connection that the parent handed to this process."""
        # Only engines that ever stand in a line pay for the import of what seals.
        from local_worker.engine.lane_desk import LaneDesk
        from local_worker.engine.lane_end import LaneBroken, LaneEnd

        if self._handed is None:
            raise FrameRefused("a lane for an engine that takes none")
        number, descriptors, _, _ = socket.recv_fds(self._handed, 4, 1)
        if struct.unpack("<I", number)[0] != lane.number:
            raise FrameRefused(f"lane {lane.number} came without its connection")
        if self._desk is None:
            self._desk = LaneDesk(
                self._scheduler, self._model.n_embd, self._gathering.is_alone_but, self._model.role
            )
        if not descriptors:
            self._desk.refuse(lane.number, "this process has no descriptor left for it")
            return
        connection = socket.socket(fileno=descriptors[0])
        try:
            self._desk.add(LaneEnd(connection, lane))
        except (LaneBroken, OSError) as error:
            connection.close()
            self._desk.refuse(lane.number, str(error))

    def _vocabulary(self, call: int) -> bytes:
        if self._pieces is None:
            try:
                self._pieces = vocabulary_frame(0, self._model.vocabulary())
            except BatchFailed as error:
                return failure_frame(call, Failure.DECODE_REFUSED, str(error))
        return self._pieces[:5] + struct.pack("<I", call) + self._pieces[9:]

    def _tokenize(self, call: int, text: bytes, *, marked: bool) -> bytes:
        try:
            ids = self._model.tokenize(text, marked=marked) if text else np.empty(0, dtype=np.int32)
        except BatchFailed as error:
            return failure_frame(call, Failure.DECODE_REFUSED, str(error))
        return tokens_frame(call, ids)
