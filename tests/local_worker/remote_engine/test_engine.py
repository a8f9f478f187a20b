"""Rows from a server: the right ones, in few requests, and a name for everything that goes wrong."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path

import numpy as np
import pytest

from local_worker.engine import errors
from local_worker.engine.messages import RowOutput
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.remote_engine import errors as remote_errors
from local_worker.remote_engine.engine import RemoteEngine
from local_worker.remote_engine.options import RemoteServer
from tests.local_worker.remote_engine.conftest import CONTEXT_ROWS, LIMITS, StartRemote
from tests.local_worker.remote_engine.double import KEY, LLAMA_SERVER, VLLM, Double

both_forms = pytest.mark.parametrize("double", [VLLM, LLAMA_SERVER], indirect=True)
PROMPT = [1, 300, 301, 302, 303]


def assert_row(double: Double, row: RowOutput, ids: list[int], top_k: int) -> None:
    """The row after ``ids`` by the double's rule, as exact log-probabilities."""
    expected = double.row(ids)
    assert row.position == len(ids) - 1
    assert row.ids.tolist() == np.argsort(-expected)[:top_k].tolist()
    assert np.allclose(row.logits - row.logsumexp, expected[row.ids], atol=1e-5)


async def greedy(engine: RemoteEngine, prompt: list[int], count: int) -> list[int]:
    sequence = engine.open_sequence()
    ids = list(prompt)
    (row,) = await sequence.decode(0, ids, top_k=8, outputs="last")
    for _ in range(count):
        token = int(row.ids[0])
        (row,) = await sequence.decode(len(ids), [token], top_k=8, outputs="last")
        ids.append(token)
    sequence.close()
    return ids


@both_forms
async def test_rows_are_the_servers_own_and_a_stream_spares_requests(
    double: Double, start_remote: StartRemote
) -> None:
    engine = await start_remote()
    assert (engine.max_top_k, engine.info.context_rows, engine.info.sequences) == (20, CONTEXT_ROWS, 2)
    assert engine.info.vocab_size == len(double.pieces)
    sequence = engine.open_sequence()
    ids = list(PROMPT)
    (row,) = await sequence.decode(0, ids, top_k=8, outputs="last")
    assert_row(double, row, ids, 8)
    for _ in range(60):
        token = int(row.ids[0])
        (row,) = await sequence.decode(len(ids), [token], top_k=8, outputs="last")
        ids.append(token)
        assert_row(double, row, ids, 8)
    # 61 rows in windows of 8, 16, 32 and 64.
    assert [asked["max_tokens"] for asked in double.streams] == [8, 16, 32, 64]
    assert sequence.held_rows == len(ids)


async def test_another_token_than_the_servers_begins_again_from_the_clients(
    double: Double, start_remote: StartRemote
) -> None:
    sequence = (await start_remote()).open_sequence()
    ids = list(PROMPT)
    (row,) = await sequence.decode(0, ids, top_k=8, outputs="last")
    for _ in range(5):
        token = int(row.ids[3])
        (row,) = await sequence.decode(len(ids), [token], top_k=8, outputs="last")
        ids.append(token)
        assert_row(double, row, ids, 8)
        assert double.streams[-1]["prompt"] == ids
    # Cut back, and on from there.
    (row,) = await sequence.decode(3, [444], top_k=20, outputs="last")
    assert_row(double, row, [*PROMPT[:3], 444], 20)
    assert sequence.held_rows == 4


@both_forms
async def test_a_window_of_guesses_has_an_output_for_each_row(
    double: Double, start_remote: StartRemote
) -> None:
    engine = await start_remote()
    made = (await greedy(engine, PROMPT, 4))[len(PROMPT) :]
    sequence = engine.open_sequence()
    await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    double.streams.clear()
    rows = await sequence.decode(len(PROMPT), [*made[:3], 555, 556], top_k=8, outputs="all")
    for index, row in enumerate(rows):
        assert_row(double, row, [*PROMPT, *made[:3], 555, 556][: len(PROMPT) + index + 1], 8)
    assert len(rows) == 5
    assert len(double.streams) == 2  # the guesses that hold came out of the open stream


async def test_two_sessions_do_not_touch_each_other(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote()
    one, other = await asyncio.gather(greedy(engine, PROMPT, 20), greedy(engine, [1, 400], 20))
    assert (one[: len(PROMPT)], other[:2]) == (PROMPT, [1, 400])
    for ids, begin in ((one, len(PROMPT)), (other, 2)):
        assert all(ids[at] == int(double.row(ids[:at]).argmax()) for at in range(begin, len(ids)))


async def test_requests_that_make_no_sense_reach_no_server(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote(sequences=1)
    sequence = engine.open_sequence()
    with pytest.raises(errors.EngineFull):
        engine.open_sequence()
    for position, ids, top_k in ((1, [1], 8), (0, [], 8), (0, [1], 0), (0, [1000], 8), (0, [-1], 8)):
        with pytest.raises(errors.DecodeRefused):
            await sequence.decode(position, ids, top_k=top_k, outputs="last")
    with pytest.raises(errors.ContextFull):
        await sequence.decode(0, [5] * (CONTEXT_ROWS + 1), top_k=8, outputs="last")
    hidden = np.zeros((1, 64), dtype=np.float32)
    for chunk in (
        sequence.enter(0, [1]),
        sequence.pass_on(0, hidden),
        sequence.leave(0, hidden, top_k=1, outputs="last"),
    ):
        with pytest.raises(errors.DecodeRefused, match="whole model"):
            await chunk
    sequence.close()
    with pytest.raises(errors.DecodeRefused):
        await sequence.decode(0, [1], top_k=8, outputs="last")
    assert (double.streams, engine.free_sequences) == ([], 1)


MISDEEDS: tuple[tuple[list[str], type[Exception]], ...] = (
    (["cut"] * 3, remote_errors.RemoteCutOff),
    (["made room"] * 3, remote_errors.RemoteCutOff),
    (["ends"], remote_errors.RemoteMalformed),
    (["html"], remote_errors.RemoteMalformed),
    (["redirect"], remote_errors.RemoteRefused),
    (["error inside"], remote_errors.RemoteRefused),
    (["no json"], remote_errors.RemoteMalformed),
    (["oversized"], remote_errors.RemoteMalformed),
    (["above certain"], remote_errors.RemoteMalformed),
    (["not summing"], remote_errors.RemoteMalformed),
    (["unknown token"], remote_errors.RemoteDisagrees),
    (["other bytes"], remote_errors.RemoteDisagrees),
    (["text without rows"], remote_errors.RemoteMalformed),
    (["chatter"], remote_errors.RemoteMalformed),
    (["no room for this context"], remote_errors.RemoteContextFull),
    (["429"] * 3, remote_errors.RemoteBusy),
    (["503"] * 3, remote_errors.RemoteBusy),
    (["500"], remote_errors.RemoteRefused),
    (["401"], remote_errors.RemoteKeyRefused),
    (["404"], remote_errors.RemoteRefused),
)


@both_forms
async def test_each_misdeed_has_a_name_and_costs_one_request(
    double: Double, start_remote: StartRemote
) -> None:
    engine = await start_remote()
    sequence, other = engine.open_sequence(), engine.open_sequence()
    next_token = int(double.row(PROMPT).argmax())
    for faults, expected in MISDEEDS:
        await sequence.decode(0, PROMPT, top_k=8, outputs="last")
        await other.decode(0, PROMPT, top_k=8, outputs="last")
        double.faults = list(faults)
        with pytest.raises(expected) as caught:
            await sequence.decode(2, [444, 445], top_k=8, outputs="last")
        known = errors.EngineGone | errors.DecodeFailed | errors.EngineBusy | errors.ContextFull
        assert isinstance(caught.value, known), faults
        assert str(caught.value).isprintable(), faults
        assert (double.faults, sequence.held_rows, engine.alive) == ([], 2, True), faults
        (row,) = await sequence.decode(2, [444, 445], top_k=8, outputs="last")
        assert_row(double, row, [*PROMPT[:2], 444, 445], 8)
        (row,) = await other.decode(len(PROMPT), [next_token], top_k=8, outputs="last")
        assert_row(double, row, [*PROMPT, next_token], 8)


async def test_a_server_that_hangs_is_left_after_the_time_allowed(
    double: Double, start_remote: StartRemote
) -> None:
    sequence = (await start_remote(first_row_s=1.0)).open_sequence()
    double.faults = ["hang"]
    with pytest.raises(remote_errors.RemoteTimedOut, match="gave nothing for 1 s"):
        await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    async with asyncio.timeout(60):
        await double.dropped.wait()


async def test_what_passes_by_itself_is_tried_again(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote()
    for faults in (["429", "503"], ["cut", "cut"], ["made room"], ["cut after a row"]):
        double.faults = list(faults)
        ids = await greedy(engine, PROMPT, 3)
        assert ids[len(PROMPT) :] == [
            int(double.row(ids[:at]).argmax()) for at in range(len(PROMPT), len(ids))
        ]
        assert double.faults == [], faults


async def test_a_server_that_is_gone_has_a_name(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote()
    sequence = engine.open_sequence()
    engine.asker.http.server = type(engine.asker.http.server)("http://127.0.0.1:9/v1")
    with pytest.raises(remote_errors.RemoteUnreachable, match=r"127\.0\.0\.1:9"):
        await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    assert engine.alive


async def test_another_model_than_examined_ends_the_engine(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote()
    sequence = engine.open_sequence()
    double.faults = ["other model"]
    with pytest.raises(remote_errors.RemoteModelChanged, match=r"'other'.*'big'"):
        await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    async with asyncio.timeout(60):
        assert "other" in await engine.wait_closed()
    assert not engine.alive
    with pytest.raises(errors.EngineGone):
        engine.open_sequence()


async def test_a_decode_can_be_cancelled_and_the_server_is_left(
    double: Double, start_remote: StartRemote
) -> None:
    engine = await start_remote()
    sequence = engine.open_sequence()
    double.faults = ["hang"]
    waiting = asyncio.create_task(sequence.decode(0, PROMPT, top_k=8, outputs="last"))
    while not double.streams:  # noqa: ASYNC110  nothing else announces that the request arrived
        await asyncio.sleep(0.01)
    assert engine.waiting_calls == 1
    with pytest.raises(errors.EngineBusy):
        await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    sequence.cancel()
    with pytest.raises(errors.DecodeCancelled):
        await waiting
    async with asyncio.timeout(60):
        await double.dropped.wait()
    assert (engine.waiting_calls, sequence.held_rows) == (0, 0)
    (row,) = await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    assert_row(double, row, PROMPT, 8)


async def test_a_stream_that_nobody_reads_is_closed(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote(idle_s=0.05)
    sequence = engine.open_sequence()
    (row,) = await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    await asyncio.sleep(0.3)
    token = int(row.ids[0])
    (row,) = await sequence.decode(len(PROMPT), [token], top_k=8, outputs="last")
    assert_row(double, row, [*PROMPT, token], 8)
    assert len(double.streams) == 2


async def test_closing_the_engine_fails_what_waits(double: Double, start_remote: StartRemote) -> None:
    engine = await start_remote()
    sequence = engine.open_sequence()
    double.faults = ["hang"]
    waiting = asyncio.create_task(sequence.decode(0, PROMPT, top_k=8, outputs="last"))
    while not double.streams:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await engine.close()
    with pytest.raises(errors.DecodeCancelled):
        await waiting
    assert not engine.alive


async def test_the_key_goes_to_the_server_and_is_said_nowhere(
    double: Double, start_remote: StartRemote, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    double.key = KEY
    wrong = KEY.swapcase()
    with pytest.raises(errors.EngineGone, match="no such key") as caught:
        await start_remote(key=wrong)
    assert wrong not in "".join(traceback.format_exception(caught.value, chain=True))
    engine = await start_remote(key=KEY)
    assert double.headers[-1] == f"Bearer {KEY}"
    double.faults = ["redirect"]
    with pytest.raises(remote_errors.RemoteRefused) as caught_redirect:
        await engine.open_sequence().decode(0, PROMPT, top_k=8, outputs="last")
    said = "".join(traceback.format_exception(caught_redirect.value)) + repr(engine.asker.http.server)
    assert KEY not in said + caplog.text


@both_forms
async def test_servers_that_cannot_be_served_from_are_named_at_the_start(
    double: Double, start_remote: StartRemote
) -> None:
    double.models = [{"id": "big"}, {"id": "small"}]
    with pytest.raises(remote_errors.RemoteUnfit, match="2 models: 'big', 'small'"):
        await start_remote()
    with pytest.raises(remote_errors.RemoteUnfit, match=r"no model 'huge\\x1b'"):
        await start_remote(model="huge\x1b")
    assert (await start_remote(model="big")).alive
    double.without_logprobs = True
    with pytest.raises(remote_errors.RemoteUnfit, match="without log-probabilities"):
        await start_remote(model="big")
    double.without_logprobs, double.bends_choice = False, True
    with pytest.raises(remote_errors.RemoteUnfit, match="not the model's own probabilities"):
        await start_remote(model="big")
    double.bends_choice, double.takes_bias = False, False
    with pytest.raises(remote_errors.RemoteUnfit, match="no row where the model ends"):
        await start_remote(model="big")


@both_forms
async def test_a_server_with_another_vocabulary_is_named_at_the_start(
    double: Double, start_remote: StartRemote
) -> None:
    double.pieces[300:] = double.pieces[300:][::-1]
    with pytest.raises(remote_errors.RemoteUnfit) as caught:
        await start_remote()
    assert ("at the server" if double.form == LLAMA_SERVER else "spell") in str(caught.value)


@both_forms
async def test_a_server_with_a_larger_vocabulary_is_named_at_the_start(
    double: Double, start_remote: StartRemote
) -> None:
    double.pieces += [b" more"] * 3000
    with pytest.raises(remote_errors.RemoteUnfit, match=r"names token .*, the model file has 1000"):
        await start_remote()


async def test_the_context_is_what_the_server_has_room_for(double: Double, start_remote: StartRemote) -> None:
    double.models = [{"id": "big", "max_model_len": 100}]
    assert (await start_remote()).info.context_rows == 99


async def test_rows_that_nobody_looks_at_are_asked_with_the_next(
    double: Double, start_remote: StartRemote
) -> None:
    sequence = (await start_remote()).open_sequence()
    assert await sequence.decode(0, PROMPT[:3], top_k=8, outputs="none") == []
    assert (sequence.held_rows, double.streams) == (3, [])
    (row,) = await sequence.decode(3, PROMPT[3:], top_k=8, outputs="last")
    assert_row(double, row, PROMPT, 8)
    assert [asked["prompt"] for asked in double.streams] == [PROMPT]


async def test_the_worker_examines_anew_after_the_model_changed_and_stops_at_an_unfit_one(
    double: Double, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_worker.engine_host.FIRST_PAUSE_S", 0.01)
    server = RemoteServer(double.url, limits=LIMITS)
    host = EngineHost(EngineOptions(tiny_model, tmp_path / "log", CONTEXT_ROWS, 2, remote=server))
    await host.start()
    double.faults = ["other model"]
    with pytest.raises(remote_errors.RemoteModelChanged):
        await host.current().open_sequence().decode(0, PROMPT, top_k=8, outputs="last")
    async with asyncio.timeout(60):
        while not host.restarts:  # noqa: ASYNC110  nobody announces it
            await asyncio.sleep(0.02)
    sequence = host.current().open_sequence()
    (row,) = await sequence.decode(0, PROMPT, top_k=8, outputs="last")
    assert_row(double, row, PROMPT, 8)
    double.answers_as, double.bends_choice = "yet another", True
    with pytest.raises(remote_errors.RemoteModelChanged):
        await sequence.decode(0, [1, 555], top_k=8, outputs="last")
    async with asyncio.timeout(60):
        with pytest.raises(remote_errors.RemoteUnfit, match="not the model's own"):
            await host.wait_refused()
    await host.close()
