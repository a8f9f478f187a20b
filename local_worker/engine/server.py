"""The engine's loop: frames in, batches through the model, frames out; one thread, so nothing competes."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence

import numpy as np

from local_worker.engine.frames import Failure, FrameReader, FrameRefused, Kind
from local_worker.engine.gathering import Choice, Gathering
from local_worker.engine.hidden import read_forward
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

_READ_BYTES = 1 << 20


class Server:
    """One model served to one parent over one socket."""

    def __init__(self, connection: socket.socket, model: LlamaModel | WordsOnly) -> None:
        self._connection = connection
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
                    self._gathering.answered(self._scheduler.answered, time.perf_counter() - started)

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
            select.select([self._connection], [], [], choice.wait_s)
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
        return self._connection.recv(_READ_BYTES)

    def _receive_now(self) -> bytes | None:
        try:
            return self._connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _handle(self, data: bytes) -> None:
        for kind, call, body in self._reader.feed(data):
            for answer in self._answers(kind, call, body):
                self._connection.sendall(answer)

    def _answers(self, kind: Kind, call: int, body: bytes) -> list[bytes]:
        if kind is Kind.DECODE:
            return self._submit(read_decode(call, body))
        if kind is Kind.FORWARD:
            return self._submit(read_forward(call, body))
        if kind is Kind.CANCEL:
            return self._scheduler.cancel(call)
        if kind is Kind.CLEAR and len(body) == 4:
            sequence = struct.unpack("<I", body)[0]
            self._gathering.forget(sequence)
            return self._scheduler.clear(sequence)
        if kind in (Kind.TOKENIZE, Kind.TOKENIZE_MARKED) and len(body) <= MAX_TEXT_BYTES:
            return [self._tokenize(call, body, marked=kind is Kind.TOKENIZE_MARKED)]
        if kind is Kind.VOCABULARY:
            return [self._vocabulary(call)]
        raise FrameRefused(f"a {kind.name} of {len(body)} bytes is no request")

    def _submit(self, request: DecodeRequest) -> list[bytes]:
        self._gathering.asked(request.sequence)
        return self._scheduler.submit(request)

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
