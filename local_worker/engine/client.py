"""The service's door to an engine process: asyncio, no llama.cpp in sight.

    engine = await Engine.start(path, context_rows=4096, sequences=8, threads=None, log_path=log)
    sequence = engine.open_sequence()
    rows = await sequence.decode(0, ids, top_k=40, outputs="last")

A call fails with a leaf of `local_worker.engine.errors`. When the process ends, every call that waits fails with
`EngineGone`; whether to start another is the service's business.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dllm_protocol.errors import DllmError
from local_worker.cores import usable_cores
from local_worker.engine import errors
from local_worker.engine.frames import Failure, FrameReader, FrameRefused, Kind, frame
from local_worker.engine.hidden import read_hidden
from local_worker.engine.lane import Lane
from local_worker.engine.lane_frames import NewLane, lane_frame, read_down
from local_worker.engine.messages import (
    MAX_TEXT_BYTES,
    MAX_TOP_K,
    EngineInfo,
    EngineVocabulary,
    read_failure,
    read_ready,
    read_rows,
    read_tokens,
    read_vocabulary,
)
from local_worker.engine.process import EngineProcess, default_threads
from local_worker.engine.sequence import Call, Sequence

MAX_WAITING_CALLS: Final = 256
_LOAD_TIMEOUT_S = 900.0
_END_TIMEOUT_S = 5.0

_Failed = Callable[[str], DllmError]
_FAILURES: dict[Failure, _Failed] = {
    Failure.MODEL_REFUSED: errors.ModelRefused,
    Failure.CONTEXT_FULL: errors.ContextFull,
    Failure.DECODE_REFUSED: errors.DecodeRefused,
    Failure.DECODE_FAILED: errors.DecodeFailed,
    Failure.CANCELLED: errors.DecodeCancelled,
    Failure.BUSY: errors.EngineBusy,
    Failure.MISLED: errors.DecodeMisled,
}


class Engine(asyncio.Protocol):
    """One running engine process; made by `start`.

    Attributes:
        info: what it says of its model.
        alive: False from the moment that the process or its socket is gone.
    """

    info: EngineInfo
    max_top_k = MAX_TOP_K

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._calls: dict[int, Call] = {}
        self._next_call = 1
        self._unsent: list[bytes] = []
        self._free: deque[int] = deque()
        self._lanes: dict[int, Lane] = {}
        self._next_lane = 1
        self._ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._closed = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._reason = ""
        self.alive = False

    @property
    def waiting_calls(self) -> int:
        """Calls that were not answered yet."""
        return len(self._calls)

    @classmethod
    async def start(
        cls,
        model_path: Path,
        *,
        context_rows: int | None,
        sequences: int | None,
        threads: int | None,
        log_path: Path,
        gpu_layers: int | None = None,
        memory_share: int = 1,
        load_timeout_s: float = _LOAD_TIMEOUT_S,
        words_only: bool = False,
        as_stored: bool = False,
    ) -> Engine:
        """Start a process that has loaded ``model_path``.

        Args:
            context_rows: rows that each sequence can hold, None: as memory allows; llama.cpp rounds up to 256.
            sequences: how many may be open at once, None: as memory allows; each has KV memory of its own.
            threads: that compute; None: some of the cores for tokens, as many as help for prompts.
            log_path: where llama.cpp's own words go (appended, 0600, bounded).
            gpu_layers: layers on graphics cards, where llama.cpp was built for them; None: all that fit.
            memory_share: among how many engines that start together free memory is divided.
            words_only: load no weights; it tokenises and has no sequences.
            as_stored: use weights where the file is mapped; else llama.cpp keeps some in memory in a faster form.

        Raises:
            ModelRefused: the engine says why.
            EngineGone: it died over the file, or took longer than ``load_timeout_s``.
        """
        process, connection = await EngineProcess.start(
            model_path,
            _options(
                {
                    "context-rows": context_rows,
                    "sequences": sequences,
                    "threads": threads or default_threads(),
                    "slice-threads": threads or usable_cores(),
                    "gpu-layers": gpu_layers,
                    "memory-share": memory_share,
                },
                {"words-only": words_only, "as-stored": as_stored},
            ),
            log_path,
        )
        engine = cls(process)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: engine, sock=connection)
            engine.info = await asyncio.wait_for(asyncio.shield(engine._ready), load_timeout_s)
        except TimeoutError as error:
            await engine.close()
            raise errors.EngineGone(f"{model_path.name} was not loaded in {load_timeout_s:.0f} s") from error
        except BaseException:
            await engine.close()
            raise
        engine._free.extend(range(engine.info.sequences))
        return engine

    async def vocabulary(self) -> EngineVocabulary:
        """Every token's bytes and attributes."""
        answer = await self._ask(Kind.VOCABULARY, b"")
        if not isinstance(answer, EngineVocabulary):
            raise self._nonsense("vocabulary")
        return answer

    async def tokenize(self, text: str, *, marked: bool = False) -> list[int]:
        """Token ids of a text, no begin token before it; control tokens in it are text unless ``marked`` as such.

        Raises:
            DecodeRefused: a text above 4 MiB.
        """
        data = text.encode()
        if len(data) > MAX_TEXT_BYTES:
            raise errors.DecodeRefused(f"a text of {len(data)} bytes is above {MAX_TEXT_BYTES}")
        answer = await self._ask(Kind.TOKENIZE_MARKED if marked else Kind.TOKENIZE, data)
        if not isinstance(answer, list):
            raise self._nonsense("tokenize")
        return answer

    def open_sequence(self) -> Sequence:
        """An empty sequence of one's own.

        Raises:
            EngineFull: all are open.
            EngineGone: the process ended.
        """
        self._check_alive()
        if not self._free:
            raise errors.EngineFull(f"all {self.info.sequences} sequences are open", hint="close one first")
        # The lowest free number: llama.cpp batches neighbours together.
        slot = min(self._free)
        self._free.remove(slot)
        return Sequence(self, slot)

    def take_lane(
        self, connection: socket.socket, state: bytes, *, form: int, is_dialler: bool
    ) -> Lane | None:
        """Have the engine go on with a lane's connection, whose handshake is over.

        Args:
            connection: is closed here in any case.
            state: what `SealedStream.hand_over` gave.
            form: how hidden states go over it.
            is_dialler: whether this side dialled; the other one sends nothing but a hello.

        Returns:
            The lane; None where the engine cannot have it.
        """
        number = self._next_lane
        if not self._process.hand_over(number, connection) or not self.alive:
            return None
        self._next_lane = number % 0xFFFFFFFF + 1
        lane = self._lanes[number] = Lane(number, self._end_lane)
        self._send(lane_frame(NewLane(number, form, is_dialler, state)))
        return lane

    def _end_lane(self, lane: Lane) -> None:
        if self._lanes.pop(lane.number, None) is not None:
            self._send(frame(Kind.LANE_END, lane.number))

    @property
    def free_sequences(self) -> int:
        """How many more can be opened."""
        return len(self._free)

    async def close(self) -> None:
        """End the process; calls that wait fail with `EngineGone`."""
        self._end("it was closed")
        await self._closed.wait()

    async def wait_closed(self) -> str:
        """Return when the process has ended: why, in words."""
        await self._closed.wait()
        return self._reason

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.alive = True

    def data_received(self, data: bytes) -> None:
        try:
            for kind, call, body in self._reader.feed(data):
                self._handle(kind, call, body)
        except FrameRefused as error:
            self._end(f"it sent what is no answer: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("")

    # --- inside

    def _handle_lane(self, kind: Kind, number: int, body: bytes) -> None:
        lane = self._lanes.get(number)
        if lane is None:
            return  # it was given up meanwhile
        if kind is Kind.LANE_UP:
            lane.rise()
            return
        del self._lanes[number]
        reason, is_fault = read_down(body)
        lane.fall(reason, is_fault=is_fault)

    def _handle(self, kind: Kind, call_id: int, body: bytes) -> None:
        if kind in (Kind.LANE_UP, Kind.LANE_DOWN):
            self._handle_lane(kind, call_id, body)
            return
        if kind is Kind.READY and not self._ready.done():
            self._ready.set_result(read_ready(body))
            return
        if kind is Kind.FAILED and call_id == 0 and not self._ready.done():
            message, _, hint = read_failure(body)[2].partition("\n")
            self._ready.set_exception(errors.ModelRefused(message, hint=hint))
            return
        call = self._calls.get(call_id)
        if call is None:
            raise FrameRefused(f"a {kind.name} for call {call_id}, which nobody made")
        if kind is Kind.ROWS and call.sequence is not None:
            answer = read_rows(body)
            call.rows += answer.rows
            call.sequence.held_rows = answer.held_rows
            if not answer.last:
                return
            call.succeed(call.rows)
        elif kind is Kind.HIDDEN and call.sequence is not None:
            if not call.take(read_hidden(body)):
                return
        elif kind is Kind.FAILED:
            failure, held_rows, message = read_failure(body)
            if call.sequence is not None and failure is not Failure.BUSY:
                call.sequence.held_rows = held_rows
            call.fail(_FAILURES[failure](message))
        elif kind is Kind.TOKENS and call.sequence is None:
            call.succeed(read_tokens(body))
        elif kind is Kind.PIECES and call.sequence is None:
            call.succeed(read_vocabulary(body))
        else:
            raise FrameRefused(f"a {kind.name} does not answer call {call_id}")
        del self._calls[call_id]

    async def _ask(self, kind: Kind, body: bytes) -> object:
        number, call = self._register(None)
        self._send(frame(kind, number, body))
        return await call.answer

    def _register(self, sequence: Sequence | None) -> tuple[int, Call]:
        self._check_alive()
        if len(self._calls) >= MAX_WAITING_CALLS:
            raise errors.EngineBusy(f"{len(self._calls)} calls wait already", hint="try again in a moment")
        number = self._next_call
        self._next_call = number % 0xFFFFFFFF + 1
        call = self._calls[number] = Call(sequence)
        return number, call

    def _send(self, data: bytes) -> None:
        """Goes out with all that this turn of the loop has to say: the engine hears of sessions that were answered
        together in one piece, and decodes them in one batch.
        """
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and self.alive:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _check_alive(self) -> None:
        if not self.alive:
            raise errors.EngineGone(f"the engine has ended: {self._reason or 'its socket closed'}")

    def _nonsense(self, what: str) -> errors.EngineGone:
        self._end(f"it answered {what} with something else")
        return errors.EngineGone(f"the engine has ended: {self._reason}")

    def _end(self, reason: str) -> None:
        self.alive = False
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        exit_words = await self._process.end(_END_TIMEOUT_S)
        self._reason = self._reason or exit_words
        message = f"the engine has ended: {self._reason}"
        hint = f"its last words are in {self._process.log_path}"
        for call in self._calls.values():
            call.fail(errors.EngineGone(message, hint=hint))
        self._calls.clear()
        for lane in self._lanes.values():
            lane.fall(message)
        self._lanes.clear()
        if not self._ready.done():
            self._ready.set_exception(errors.EngineGone(message, hint=hint))
            self._ready.exception()
        self._closed.set()


def _options(numbers: dict[str, int | None], flags: dict[str, bool]) -> tuple[str, ...]:
    """The engine's command line; what is None is left to it."""
    given = tuple(f"--{name}={number}" for name, number in numbers.items() if number is not None)
    return (*given, *(f"--{name}" for name, is_set in flags.items() if is_set))
