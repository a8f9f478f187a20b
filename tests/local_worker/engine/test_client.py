"""The engine through its door: real processes, a real (tiny, random) model."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bare_loop import BareLoop
from local_worker.engine import errors
from local_worker.engine.client import Engine
from local_worker.engine.messages import BYTE, CONTROL, NORMAL
from local_worker.engine.sequence import Sequence
from tests.local_worker.standing_still import standing_still

PROMPTS = [[1, 300 + i, 301 + 2 * i, 302, 303 + i] for i in range(4)]


async def greedy(sequence: Sequence, prompt: list[int], count: int) -> tuple[list[int], float]:
    """Tokens after a prompt and the smallest gap between the first and second choice on the way."""
    tokens: list[int] = []
    gap = float("inf")
    ids, position = prompt, 0
    for _ in range(count):
        (row,) = await sequence.decode(position, ids, top_k=2, outputs="last")
        gap = min(gap, float(row.logits[0] - row.logits[1]))
        tokens.append(int(row.ids[0]))
        position += len(ids)
        ids = tokens[-1:]
    return tokens, gap


async def test_greedy_tokens_equal_the_bare_loop(engine: Engine, bare: BareLoop) -> None:
    first = bare.start(PROMPTS[0])
    expected = [first, *bare.greedy(first, len(PROMPTS[0]), 39)]
    tokens, gap = await greedy(engine.open_sequence(), PROMPTS[0], 40)
    assert gap > 0
    assert tokens == expected
    assert len(set(tokens)) > 5, "a model that repeats itself would prove little"


async def test_a_detour_from_the_likeliest_token_equals_the_bare_loop(engine: Engine, bare: BareLoop) -> None:
    """Twenty likeliest tokens: by then the engine runs ahead, and the detours find it wrong."""
    sequence = engine.open_sequence()
    bare.start(PROMPTS[0])
    (row,) = await sequence.decode(0, PROMPTS[0], top_k=3, outputs="last")
    position = len(PROMPTS[0])
    for detour in (1, 2, 1):
        token = int(row.ids[detour])
        expected = bare.greedy(token, position, 20)
        for wanted in expected:
            assert sequence.held_rows == position
            (row,) = await sequence.decode(position, [token], top_k=3, outputs="last")
            assert row.position == position
            token, position = int(row.ids[0]), position + 1
            assert token == wanted


async def test_four_sequences_at_once_answer_as_each_alone(engine: Engine, bare: BareLoop) -> None:
    alone = []
    for prompt in PROMPTS:
        first = bare.start(prompt)
        alone.append([first, *bare.greedy(first, len(prompt), 29)])
    sequences = [engine.open_sequence() for _ in PROMPTS]
    together = await asyncio.gather(*(greedy(s, p, 30) for s, p in zip(sequences, PROMPTS, strict=True)))
    for (tokens, gap), expected in zip(together, alone, strict=True):
        assert gap > 5e-4, "the seed gives clear choices; batch shape moves logits by about 1e-5"
        assert tokens == expected
    with pytest.raises(errors.EngineFull, match="4 sequences"):
        engine.open_sequence()
    sequences[2].close()
    fresh, _ = await greedy(engine.open_sequence(), PROMPTS[0], 30)
    assert fresh == alone[0]


async def test_prefix_reuse_equals_a_fresh_decode(engine: Engine) -> None:
    kept, fresh = engine.open_sequence(), engine.open_sequence()
    text = list(range(300, 340))
    await kept.decode(0, [*text, 500, 501, 502], top_k=5, outputs="last")
    assert kept.held_rows == 43
    (reused,) = await kept.decode(40, [600, 601], top_k=20, outputs="last")
    (whole,) = await fresh.decode(0, [*text, 600, 601], top_k=20, outputs="last")
    assert kept.held_rows == fresh.held_rows == 42
    assert reused.position == whole.position == 41
    np.testing.assert_allclose(reused.logits, whole.logits, atol=1e-3)
    assert reused.ids[0] == whole.ids[0]
    assert reused.logsumexp == pytest.approx(whole.logsumexp, abs=1e-3)


async def test_all_outputs_are_those_of_each_row(engine: Engine) -> None:
    at_once, one_by_one = engine.open_sequence(), engine.open_sequence()
    ids = [(7 * i) % 900 + 50 for i in range(150)]
    rows = await at_once.decode(0, ids, top_k=3, outputs="all")
    assert [row.position for row in rows] == list(range(150))
    for position in (0, 1, 2, 3):
        (row,) = await one_by_one.decode(position, ids[position : position + 1], top_k=3, outputs="last")
        np.testing.assert_allclose(row.logits, rows[position].logits, atol=1e-3)
    (whole,) = await one_by_one.decode(0, ids, top_k=1000, outputs="last")
    assert sorted(whole.ids) == list(range(1000))
    assert (np.diff(whole.logits) <= 0).all()
    probabilities = np.exp(whole.logits.astype(np.float64) - whole.logsumexp)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(whole.logits[:3], rows[-1].logits, atol=1e-3)


async def test_cancel_stops_a_long_prompt_between_slices(engine: Engine) -> None:
    sequence = engine.open_sequence()
    ids = [300 + i % 100 for i in range(500)]
    running = asyncio.create_task(sequence.decode(0, ids, top_k=1, outputs="all"))
    await asyncio.sleep(0)
    # Else it may be done before it is told, where we wait for our turn.
    with standing_still(engine):
        with pytest.raises(errors.EngineBusy, match="decoding already"):
            await sequence.decode(0, [1], top_k=1, outputs="last")
        sequence.cancel()
        await asyncio.sleep(0)  # what is to be said goes out with this turn of the loop
    with pytest.raises(errors.DecodeCancelled, match="of 500 rows"):
        await running
    assert sequence.held_rows < 500
    (row,) = await sequence.decode(sequence.held_rows, [5], top_k=1, outputs="last")
    assert row.position == sequence.held_rows - 1


async def test_a_cancelled_task_leaves_the_sequence_usable(engine: Engine) -> None:
    sequence = engine.open_sequence()
    ids = [300 + i % 100 for i in range(500)]
    running = asyncio.create_task(sequence.decode(0, ids, top_k=1, outputs="all"))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (row,) = await sequence.decode(0, [5], top_k=1, outputs="last")
    assert (row.position, sequence.held_rows) == (0, 1)


async def test_context_limit_and_nonsense_are_named_and_change_nothing(engine: Engine) -> None:
    sequence = engine.open_sequence()
    await sequence.decode(0, [300] * 500, top_k=1, outputs="last")
    with pytest.raises(errors.ContextFull, match="513 rows, the context holds 512"):
        await sequence.decode(500, [300] * 13, top_k=1, outputs="last")
    with pytest.raises(errors.DecodeRefused, match="from 501 on, but the sequence holds 500"):
        await sequence.decode(501, [300], top_k=1, outputs="last")
    for wrong in ([1000], [-1], [1 << 40], []):
        with pytest.raises(errors.DecodeRefused):
            await sequence.decode(500, wrong, top_k=1, outputs="last")
    with pytest.raises(errors.DecodeRefused):
        await sequence.decode(500, [300], top_k=0, outputs="last")
    assert sequence.held_rows == 500
    (row,) = await sequence.decode(500, [300] * 12, top_k=1, outputs="last")
    assert row.position == 511


async def test_kill_9_fails_every_waiting_call_by_name(engine: Engine) -> None:
    sequences = [engine.open_sequence() for _ in range(3)]
    os.kill(engine._process.pid, signal.SIGSTOP)  # so that nothing is answered before the end
    calls: list[asyncio.Task[object]] = [
        asyncio.create_task(s.decode(0, [300] * 400, top_k=1, outputs="last")) for s in sequences
    ]
    calls.append(asyncio.create_task(engine.tokenize("some text")))
    await asyncio.sleep(0)
    os.kill(engine._process.pid, signal.SIGKILL)
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, errors.EngineGone)
        assert "SIGKILL" in result.message
    assert "SIGKILL" in await engine.wait_closed()
    assert not engine.alive
    with pytest.raises(errors.EngineGone):
        engine.open_sequence()
    with pytest.raises(errors.EngineGone):
        await sequences[0].decode(0, [1], top_k=1, outputs="last")


async def test_closing_the_engine_ends_the_process(tiny_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    engine = await Engine.start(tiny_model, context_rows=256, sequences=1, threads=1, log_path=log)
    assert (engine.info.architecture, engine.info.vocab_size, engine.info.layers) == ("llama", 1000, 2)
    assert log.stat().st_mode & 0o777 == 0o600
    await engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(engine._process.pid, 0)


@pytest.mark.parametrize(
    "text", ["hello world", "", " two  spaces ", "<|im_end|> is text", "ünï ☃ 🙂\n\ttabs", "a\x00b"]
)
async def test_pieces_of_a_text_spell_it(engine: Engine, text: str) -> None:
    vocabulary = await engine.vocabulary()
    ids = await engine.tokenize(text)
    spelled = b"".join(vocabulary.pieces[token] for token in ids)
    assert vocabulary.adds_space
    assert spelled == (b" " + text.encode() if text else b"")
    assert all(vocabulary.attributes[token] & (NORMAL | BYTE) for token in ids)


async def test_vocabulary_names_its_control_tokens(engine: Engine) -> None:
    vocabulary = await engine.vocabulary()
    assert vocabulary == await engine.vocabulary()
    assert len(vocabulary.pieces) == len(vocabulary.attributes) == 1000
    assert vocabulary.pieces[1:5] == (b"<s>", b"</s>", b"<|im_start|>", b"<|im_end|>")
    assert all(attribute & CONTROL for attribute in vocabulary.attributes[1:5])
    assert vocabulary.pieces[5:261] == tuple(bytes([value]) for value in range(256))
    assert all(attribute & BYTE for attribute in vocabulary.attributes[5:261])
    assert (vocabulary.bos, vocabulary.eos, vocabulary.eot) == (1, 2, 4)
    assert vocabulary.end_ids == (2, 4)
    assert (vocabulary.adds_bos, vocabulary.tokenizer) == (True, "spm")
