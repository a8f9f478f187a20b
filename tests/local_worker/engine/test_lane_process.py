"""Real engine processes joined by lanes: the same rows to the bit as over the service, and none falls with another."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from dllm_protocol.lane import KIND_F32, KIND_HELLO, KIND_TOKEN, LaneMessage, LaneStream, token_body
from dllm_protocol.messages import FORM_F32
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.sealing import SealedStream
from local_worker.engine import errors
from local_worker.engine.client import Engine
from local_worker.engine.lane import Lane
from local_worker.engine.lane_frames import NO_TOKEN
from local_worker.engine.messages import Hidden, RowOutput, Ticket
from local_worker.engine.ring import MIN_STREAK
from local_worker.engine.sequence import Sequence as Place
from local_worker.packages.assembling import assemble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY, write_model

CONTEXT_ROWS = 256
CUT = (0, 1, 3, 4)
PROMPT = [1, *(300 + 7 * n % 200 for n in range(20))]
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model in three files."""
    folder = tmp_path_factory.mktemp("lanes")
    manifest: Manifest = packed(write_model(folder / "model.gguf", SHAPES["llama"]), folder / "package")
    paths = []
    for first, end in itertools.pairwise(CUT):
        paths.append(folder / f"{first}-{end}.gguf")
        assemble(folder / "package", manifest, first, end, paths[-1])
    return paths


@asynccontextmanager
async def started(paths: Sequence[Path], folder: Path) -> AsyncIterator[list[Engine]]:
    """An engine process for each file."""
    async with AsyncExitStack() as stack:
        engines = []
        for number, path in enumerate(paths):
            engine = await Engine.start(
                path, context_rows=CONTEXT_ROWS, sequences=2, threads=1, log_path=folder / f"{number}.log"
            )
            stack.push_async_callback(engine.close)
            engines.append(engine)
        yield engines


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  nothing announces how a lane fares
            await asyncio.sleep(0.005)


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over TCP, the dialling one first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dialling = socket.create_connection(listening.getsockname())
        return dialling, listening.accept()[0]


def streams() -> tuple[SealedStream, SealedStream]:
    return SealedStream(b"d" * 32, b"a" * 32), SealedStream(b"a" * 32, b"d" * 32)


def taken(engine: Engine, connection: socket.socket, stream: SealedStream, *, is_dialler: bool) -> Lane:
    lane = engine.take_lane(connection, stream.hand_over(), form=FORM_F32, is_dialler=is_dialler)
    assert lane is not None
    return lane


async def joined(before: Engine, behind: Engine) -> tuple[Lane, Lane]:
    """A lane from one engine to another: out of the first, into the second."""
    (dialling, accepted), (one, other) = connected(), streams()
    out = taken(before, dialling, one, is_dialler=True)
    into = taken(behind, accepted, other, is_dialler=False)
    await until(lambda: out.is_up and into.is_up)
    return out, into


class Chain:
    """One sequence's place in each of three engines."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.places: list[Place] = [engine.open_sequence() for engine in engines]

    async def plain(self, position: int, ids: list[int]) -> tuple[Hidden, Hidden, RowOutput]:
        first, middle, last = self.places
        entered = await first.enter(position, ids)
        passed = await middle.pass_on(position, entered)
        (row,) = await last.leave(position, passed, top_k=VOCABULARY, outputs="last")
        return entered[-1:], passed[-1:], row

    async def over_lanes(
        self, position: int, token: int, request: int, lanes: Sequence[tuple[Lane, Lane]]
    ) -> tuple[Hidden, Hidden, RowOutput]:
        """``lanes``: as `joined` gave them, from the first stage on; the last one leads back to it."""
        async with asyncio.timeout(PATIENCE_S):
            first, middle, last = await asyncio.gather(
                *(
                    place.over_lanes(
                        position,
                        Ticket(request, lanes[stage - 1][1].number, lanes[stage][0].number),
                        token=NO_TOKEN if stage else token,
                        top_k=VOCABULARY,
                    )
                    for stage, place in enumerate(self.places)
                )
            )
        assert first.sent and middle.sent and not last.sent
        assert first.hidden is not None and middle.hidden is not None
        return first.hidden, middle.hidden, last.rows[0]


def said(answer: tuple[Hidden, Hidden, RowOutput]) -> tuple[object, ...]:
    entered, passed, row = answer
    return (
        *(entered.tobytes(), passed.tobytes()),
        *(row.position, row.ids.tolist(), row.logits.tobytes(), row.logsumexp),
    )


async def test_rows_over_lanes_are_those_that_the_service_would_have_carried(
    chunks: list[Path], tmp_path: Path
) -> None:
    """Likeliest tokens for long enough that all three run ahead, two detours, and a window in between."""
    async with started(chunks, tmp_path) as engines:
        first, middle, last = engines
        lanes = [await joined(*pair) for pair in ((first, middle), (middle, last), (last, first))]
        chain, tokens, answers = Chain(engines), list[int](), list[tuple[object, ...]]()
        _, _, row = await chain.plain(0, PROMPT)
        request, position = 10, len(PROMPT)
        for number in range(40):
            detour = int(number in (14, 15, 30))
            request += 1 + bool(detour)
            tokens.append(int(row.ids[detour]))
            if number == 25:
                answer = await chain.plain(position, tokens[-1:])
                request += 2
            else:
                answer = await chain.over_lanes(position, tokens[-1], request, lanes)
            row, position = answer[2], position + 1
            answers.append(said(answer))
            assert [place.held_rows for place in chain.places] == [position] * 3
        other = Chain(engines)
        await other.plain(0, PROMPT)
        for number, token in enumerate(tokens):
            assert said(await other.plain(len(PROMPT) + number, [token])) == answers[number], number
        assert len(set(tokens)) > 5, "a model that repeats itself would prove little"


async def test_the_end_of_the_engine_before_fails_the_row_that_is_awaited_and_nothing_else(
    chunks: list[Path], tmp_path: Path
) -> None:
    async with started(chunks[:2], tmp_path) as (first, middle):
        _, into = await joined(first, middle)
        entered = await first.open_sequence().enter(0, PROMPT)
        place = middle.open_sequence()
        wanted = await place.pass_on(0, entered)
        waiting = asyncio.create_task(place.over_lanes(len(PROMPT), Ticket(7, into.number, 0)))
        await asyncio.sleep(0)
        os.kill(first._process.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(errors.DecodeCancelled, match="the lane ended: "):
                await waiting
            await first.wait_closed()
        await until(lambda: not into.is_up)
        assert into.reason and not into.is_fault
        assert middle.alive
        assert place.held_rows == len(PROMPT)
        with pytest.raises(errors.DecodeCancelled, match="has ended"):
            await place.over_lanes(len(PROMPT), Ticket(8, into.number, 0))
        assert (await place.pass_on(0, entered)).tobytes() == wanted.tobytes()


async def test_the_end_of_the_engine_behind_leaves_rows_to_the_service(
    chunks: list[Path], tmp_path: Path
) -> None:
    async with started(chunks[:2], tmp_path) as (first, middle):
        out, into = await joined(first, middle)
        place, behind = first.open_sequence(), middle.open_sequence()
        await place.enter(0, PROMPT)
        waiting = asyncio.create_task(behind.over_lanes(0, Ticket(7, into.number, 0)))
        await asyncio.sleep(0)
        os.kill(middle._process.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(errors.EngineGone, match="the engine has ended"):
                await waiting
        await until(lambda: not (out.is_up or into.is_up))
        answer = await place.over_lanes(len(PROMPT), Ticket(7, 0, out.number), token=5)
        assert not answer.sent
        assert answer.hidden is not None
        (connection, _), (stream, _) = connected(), streams()
        assert middle.take_lane(connection, stream.hand_over(), form=FORM_F32, is_dialler=True) is None
        assert connection.fileno() == -1


@pytest.mark.parametrize("side", ["in", "out"])
async def test_a_lane_that_a_service_closes_ends_at_both_engines(
    chunks: list[Path], tmp_path: Path, side: str
) -> None:
    async with started(chunks[:2], tmp_path) as (first, middle):
        out, into = await joined(first, middle)
        place = middle.open_sequence()
        waiting = asyncio.create_task(place.over_lanes(0, Ticket(7, into.number, 0)))
        await asyncio.sleep(0)
        (into if side == "in" else out).close()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(errors.DecodeCancelled, match=r"the lane .*ended"):
                await waiting
        await until(lambda: not (out.is_up or into.is_up))
        assert "it was given up" in (into.reason, out.reason)
        # Another one is made in its place.
        out, into = await joined(first, middle)
        sender = first.open_sequence()
        answers = await asyncio.gather(
            sender.over_lanes(0, Ticket(8, 0, out.number), token=5),
            place.over_lanes(0, Ticket(8, into.number, 0)),
        )
        assert answers[0].sent and not answers[1].sent


async def test_a_row_that_is_awaited_can_be_given_up(chunks: list[Path], tmp_path: Path) -> None:
    async with started(chunks[:2], tmp_path) as (first, middle):
        _, into = await joined(first, middle)
        given_up, closed = middle.open_sequence(), middle.open_sequence()
        _, other = await joined(first, middle)
        waiting = [
            asyncio.create_task(place.over_lanes(0, Ticket(7, lane.number, 0)))
            for place, lane in ((given_up, into), (closed, other))
        ]
        await asyncio.sleep(0)
        given_up.cancel()
        closed.close()
        async with asyncio.timeout(PATIENCE_S):
            for task in waiting:
                with pytest.raises(errors.DecodeCancelled):
                    await task
        assert into.is_up and other.is_up
        assert middle.waiting_calls == 0


async def test_a_lane_that_cannot_be_gone_on_with_falls_and_ends_nothing_else(
    chunks: list[Path], tmp_path: Path
) -> None:
    async with started(chunks[:1], tmp_path) as (first,):
        ours, theirs = connected()
        lane = first.take_lane(theirs, b"too short", form=FORM_F32, is_dialler=False)
        assert lane is not None
        await until(lambda: bool(lane.reason))
        assert "a stream's state has 9 bytes" in lane.reason
        with ours:
            assert ours.recv(1) == b"", "the engine hung up"
        assert (await first.open_sequence().enter(0, PROMPT)).shape[0] == len(PROMPT)


class Stranger:
    """Who stands at the other end of an engine's lane, and says what it likes."""

    def __init__(self, connection: socket.socket, stream: SealedStream) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._stream = LaneStream(stream)
        self._heard: deque[LaneMessage] = deque()

    def send(self, kind: int, request: int, position: int, body: bytes = b"") -> None:
        self.connection.sendall(self._stream.pack(kind, request, position, body))

    async def heard(self) -> LaneMessage:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._heard:
                data = await asyncio.get_running_loop().sock_recv(self.connection, 1 << 16)
                assert data, "the engine hung up"
                self._heard += self._stream.feed(data)
        return self._heard.popleft()


async def stranger_before(engine: Engine) -> tuple[Lane, Stranger]:
    (dialling, accepted), (one, other) = connected(), streams()
    into = taken(engine, accepted, other, is_dialler=False)
    stranger = Stranger(dialling, one)
    stranger.send(KIND_HELLO, 0, 0)
    await until(lambda: into.is_up)
    return into, stranger


async def stranger_behind(engine: Engine) -> tuple[Lane, Stranger]:
    (dialling, accepted), (one, other) = connected(), streams()
    out = taken(engine, dialling, one, is_dialler=True)
    stranger = Stranger(accepted, other)
    stranger.send(KIND_HELLO, 0, 0)
    await until(lambda: out.is_up)
    assert (await stranger.heard()).kind == KIND_HELLO
    return out, stranger


async def test_a_first_stage_hands_the_likeliest_row_on_before_it_is_ordered(
    chunks: list[Path], tmp_path: Path
) -> None:
    async with started(chunks[:1], tmp_path) as (first,):
        (into, last), (out, behind) = await stranger_before(first), await stranger_behind(first)
        place, came = first.open_sequence(), list[bytes]()
        with last.connection, behind.connection:
            await place.over_lanes(0, Ticket(7, into.number, out.number), token=5)
            last.send(KIND_TOKEN, 8, 1, token_body(6))
            for request, position in ((7, 0), (8, 1)):
                message = await behind.heard()
                assert (message.kind, message.request, message.position) == (KIND_F32, request, position)
                came.append(message.body)
            assert place.held_rows == 1
            answer = await place.over_lanes(1, Ticket(8, into.number, out.number), token=6)
            assert answer.hidden is not None
            assert (answer.sent, answer.hidden.tobytes()) == (True, came[1])
            # What was handed on under a number is that number's row, whatever the client says.
            last.send(KIND_TOKEN, 9, 2, token_body(30))
            assert (await behind.heard()).request == 9
            with pytest.raises(errors.DecodeMisled):
                await place.over_lanes(2, Ticket(9, into.number, out.number), token=7)
            await place.over_lanes(2, Ticket(11, into.number, out.number), token=7)
            message = await behind.heard()
            assert message.request == 11
            came.append(message.body)
        alone = first.open_sequence()
        assert came == [(await alone.enter(row, [token])).tobytes() for row, token in enumerate((5, 6, 7))]


async def test_a_last_stage_tells_the_likeliest_token(chunks: list[Path], tmp_path: Path) -> None:
    async with started(chunks[2:], tmp_path) as (last,):
        (into, before), (out, first) = await stranger_before(last), await stranger_behind(last)
        place, chance = last.open_sequence(), np.random.default_rng(1)
        told = []
        with before.connection, first.connection:
            for number in range(MIN_STREAK + 3):
                state = chance.standard_normal(last.info.n_embd).astype("<f4")
                before.send(KIND_F32, 7 + number, number, state.tobytes())
                answer = await place.over_lanes(number, Ticket(7 + number, into.number, out.number), top_k=4)
                told.append((8 + number, number + 1, int(answer.rows[0].ids[0])))
            for wanted in told[MIN_STREAK:]:
                message = await first.heard()
                assert (message.request, message.position, message.token) == wanted


@pytest.mark.parametrize("number", [1.0, np.nan])
async def test_hidden_states_that_a_stranger_sends_to_a_first_stage_do_not_end_its_engine(
    chunks: list[Path], tmp_path: Path, number: float
) -> None:
    async with started(chunks[:1], tmp_path) as (first,):
        into, stranger = await stranger_before(first)
        place = first.open_sequence()
        await place.over_lanes(0, Ticket(7, into.number, 0), token=5)
        stranger.send(KIND_F32, 8, 1, np.full(first.info.n_embd, number, "<f4").tobytes())
        stranger.connection.close()
        await until(lambda: bool(into.reason))  # the connection's end stands behind what was sent
        assert first.alive, into.reason
        answer = await place.over_lanes(1, Ticket(9, into.number, 0), token=6)
        assert answer.hidden is not None


async def test_a_row_that_is_no_row_fails_the_call_that_awaits_it(chunks: list[Path], tmp_path: Path) -> None:
    async with started(chunks[1:2], tmp_path) as (middle,):
        into, stranger = await stranger_before(middle)
        place = middle.open_sequence()
        waiting = asyncio.create_task(place.over_lanes(0, Ticket(7, into.number, 0)))
        await asyncio.sleep(0)
        with stranger.connection:
            stranger.send(KIND_F32, 7, 0, np.full(middle.info.n_embd, np.nan, "<f4").tobytes())
            await until(lambda: bool(into.reason))
        assert middle.alive
        assert into.is_fault
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(errors.DecodeMisled, match="the lane ended: "):
                await waiting
