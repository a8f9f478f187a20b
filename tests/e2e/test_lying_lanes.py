"""What a stage sends to the next one's engine behind the services' backs is held against it, and changes no letter."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from dllm_protocol.lane import KIND_F32, KIND_HELLO, KIND_TOKEN, LaneStream, token_body
from dllm_protocol.messages import ROW_KEPT
from dllm_protocol.sealing import SealedStream
from dllm_protocol.session.orders import DecodeRows, TakeRows
from dllm_protocol.stage_link import StageLink
from light_node.channel.link import Link
from local_worker.engine.lane import Lane
from local_worker.place_lanes import PlaceLanes
from local_worker.row_work import RowWork
from local_worker.session_host import SessionHost
from tests.e2e.stages import Stages, Worker, stages_of, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(20))]
COUNT = 24
WIDTH = SHAPES["llama"].n_embd
CUTS = ((0, 1), (1, 3), (3, 4))


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


class Liar:
    """A worker whose lanes out are not its engine's: what goes over them is made up for each row it is asked for."""

    def __init__(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch, kind: int, body: bytes, shift: int
    ) -> None:
        self.worker = worker
        self.told = 0
        """Rows that it made up."""
        self._lies = (kind, shift, body)
        self._lanes: list[tuple[socket.socket, LaneStream]] = []
        hand_over, decode = PlaceLanes._handed_over, RowWork._decode

        def handed_over(
            lanes: PlaceLanes, link: Link, stage: StageLink, form: int, *, is_dialler: bool
        ) -> Lane | None:
            if not is_dialler or not any(host.place.lanes is lanes for host in self._hosts):
                return hand_over(lanes, link, stage, form, is_dialler=is_dialler)
            connection = link.detach()
            assert connection is not None
            connection.setblocking(True)
            stream = LaneStream(SealedStream.taken_over(stage.hand_over()))
            connection.sendall(stream.pack(KIND_HELLO, 0, 0, b""))
            self._lanes.append((connection, stream))
            return None

        async def decoded(work: RowWork, order: DecodeRows | TakeRows) -> None:
            if order.kind == ROW_KEPT and any(host._work is work for host in self._hosts):
                await self._lie(order.request, order.first_position)
            await decode(work, order)

        monkeypatch.setattr(PlaceLanes, "_handed_over", handed_over)
        monkeypatch.setattr(RowWork, "_decode", decoded)

    @property
    def _hosts(self) -> list[SessionHost]:
        return list(self.worker.server._hosts.values())

    async def _lie(self, request: int, position: int) -> None:
        kind, shift, body = self._lies
        number = request + (kind == KIND_TOKEN)
        for connection, stream in self._lanes[-1:]:
            try:
                await asyncio.to_thread(connection.sendall, stream.pack(kind, number, position + shift, body))
            except OSError:
                continue  # the next stage hung up on it
            self.told += 1

    def close(self) -> None:
        for connection, _ in self._lanes:
            connection.close()


NO_NUMBERS = np.full(WIDTH, np.nan, np.float32).tobytes()
LIES = {
    "no numbers": (KIND_F32, NO_NUMBERS, 0),
    "another row": (KIND_F32, bytes(4 * WIDTH), 1),
    "half a row": (KIND_F32, bytes(8), 0),
    "too much": (KIND_F32, bytes(1 << 17), 0),
    "a token": (KIND_TOKEN, token_body(5), 0),
}


@pytest.mark.parametrize("what", LIES)
@pytest.mark.parametrize("at", [0, 1])
async def test_a_stage_that_lies_over_a_lane_is_replaced_and_no_other(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, what: str, at: int
) -> None:
    serving = [await stages.start(*cut) for cut in CUTS]
    standbys = [await stages.start(*cut) for cut in CUTS]
    asking = stages.client(1, list(zip(serving, standbys, strict=True)))
    liar = Liar(serving[at], monkeypatch, *LIES[what])
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    assert liar.told
    assert asking.changes == [(serving[at].provider, standbys[at].provider)]
    assert asking.lineup.saved.failed == (serving[at].provider,)
    await asking.leave()
    liar.close()
