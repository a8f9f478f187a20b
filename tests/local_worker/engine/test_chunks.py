"""A model in three engine processes, hidden states going from one to the next, beside the whole in a fourth."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dllm_protocol.model_manifest import Manifest
from local_worker.engine import errors
from local_worker.engine.client import Engine
from local_worker.engine.messages import Hidden, RowOutput
from local_worker.engine.vocabulary_of import vocabulary_of
from local_worker.model_service import describe
from local_worker.packages.assembling import assemble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY, write_model

CONTEXT_ROWS = 512
CUT = (0, 1, 3, 4)
PROMPT = [1, *(300 + 7 * n % 200 for n in range(330))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Manifest]:
    """A model's file, its package, and the manifest."""
    folder = tmp_path_factory.mktemp("chunks")
    file = write_model(folder / "model.gguf", SHAPES["llama"])
    return file, folder / "package", packed(file, folder / "package")


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


def chunks_of(model: tuple[Path, Path, Manifest], folder: Path) -> list[Path]:
    paths = []
    for first, end in itertools.pairwise(CUT):
        paths.append(folder / f"{first}-{end}.gguf")
        assemble(model[1], model[2], first, end, paths[-1])
    return paths


class Chain:
    """One sequence's place in each chunk."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.first, self.middle, self.last = (engine.open_sequence() for engine in engines)

    async def decode(
        self, position: int, ids: Sequence[int], outputs: Literal["last", "all"]
    ) -> list[RowOutput]:
        hidden = await self.first.enter(position, ids)
        hidden = await self.middle.pass_on(position, hidden)
        return await self.last.leave(position, hidden, top_k=VOCABULARY, outputs=outputs)


def assert_equal(one: Sequence[RowOutput], other: Sequence[RowOutput]) -> None:
    assert [row.position for row in one] == [row.position for row in other]
    for a, b in zip(one, other, strict=True):
        assert a.logits.tobytes() == b.logits.tobytes()
        assert a.ids.tolist() == b.ids.tolist()
        assert a.logsumexp == b.logsumexp


async def test_three_engines_say_what_one_says(model: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    async with started([model[0], *chunks_of(model, tmp_path)], tmp_path) as (whole, *engines):
        chain, alone = Chain(engines), whole.open_sequence()
        (got,) = await chain.decode(0, PROMPT, "last")  # longer than a slice
        (wanted,) = await alone.decode(0, PROMPT, top_k=VOCABULARY, outputs="last")
        assert_equal([wanted], [got])
        for position in range(len(PROMPT), len(PROMPT) + 12):
            token = [int(wanted.ids[0])]
            (wanted,) = await alone.decode(position, token, top_k=VOCABULARY, outputs="last")
            (got,) = await chain.decode(position, token, "last")
            assert_equal([wanted], [got])
        # Cut back, and on with a window of drafted tokens.
        drafted = [400, 401, 402]
        wanted_rows = await alone.decode(100, drafted, top_k=VOCABULARY, outputs="all")
        assert_equal(wanted_rows, await chain.decode(100, drafted, "all"))
        assert (
            [chain.first.held_rows, chain.middle.held_rows, chain.last.held_rows]
            == [103] * 3
            == [alone.held_rows] * 3
        )


async def test_two_sessions_at_once_in_each_chunk(model: tuple[Path, Path, Manifest], tmp_path: Path) -> None:
    async with started([model[0], *chunks_of(model, tmp_path)], tmp_path) as (whole, *engines):
        prompts = [PROMPT[:40], PROMPT[50:53]]
        together = await asyncio.gather(*(Chain(engines).decode(0, prompt, "last") for prompt in prompts))
        for prompt, (row,) in zip(prompts, together, strict=True):
            (alone,) = await whole.open_sequence().decode(0, prompt, top_k=VOCABULARY, outputs="last")
            # Whether the two met in one batch is the scheduler's; batch shape moves logits by about 1e-5.
            np.testing.assert_allclose(row.logits, alone.logits, atol=1e-3)
            assert row.ids[0] == alone.ids[0]
            assert float(alone.logits[0] - alone.logits[1]) > 1e-3


async def test_each_chunk_says_which_it_is_and_refuses_what_is_not_its_own(
    model: tuple[Path, Path, Manifest], tmp_path: Path
) -> None:
    async with started(chunks_of(model, tmp_path), tmp_path) as engines:
        told = [(one.info.first_layer, one.info.end_layer, one.info.model_layers) for one in engines]
        assert told == [(0, 1, 4), (1, 3, 4), (3, 4, 4)]
        first, middle, last = (engine.open_sequence() for engine in engines)
        row = np.ones((1, engines[0].info.n_embd), np.float32)
        with pytest.raises(
            errors.DecodeRefused, match="layers 0:1 of 4, which take token ids and give hidden"
        ):
            await first.pass_on(0, row)
        with pytest.raises(
            errors.DecodeRefused, match="layers 1:3 of 4, which take hidden states and give hidden"
        ):
            await middle.decode(0, [5], top_k=1, outputs="last")
        with pytest.raises(
            errors.DecodeRefused, match="layers 3:4 of 4, which take hidden states and give logits"
        ):
            await last.pass_on(0, row)
        with pytest.raises(errors.DecodeRefused, match="31 numbers a row, this model has 32"):
            await middle.pass_on(0, row[:, :31])
        for number in (np.nan, np.inf, 1e16):
            with pytest.raises(errors.DecodeRefused, match="not all numbers of a usable size"):
                await middle.pass_on(0, np.full_like(row, number))
        with pytest.raises(errors.DecodeRefused, match="layers 1:3 have no vocabulary"):
            await engines[1].tokenize("some words")
        with pytest.raises(errors.DecodeRefused, match="no vocabulary"):
            await engines[1].vocabulary()
        assert middle.held_rows == 0
        assert (await middle.pass_on(0, row)).shape == row.shape
        vocabulary = await engines[0].vocabulary()
        assert (
            vocabulary == await engines[2].vocabulary() == await vocabulary_of(model[0], tmp_path / "v.log")
        )
        with pytest.raises(errors.ModelRefused, match="is layers 3:4 of a model of 4"):
            await describe(tmp_path / "3-4.gguf", engines[2])


async def test_rows_that_do_not_go_into_one_request_are_refused_by_name(
    model: tuple[Path, Path, Manifest], tmp_path: Path
) -> None:
    async with started(chunks_of(model, tmp_path)[1:2], tmp_path) as (engine,):
        sequence = engine.open_sequence()
        huge: Hidden = np.zeros((300, 1 << 15), np.float32)
        with pytest.raises(errors.DecodeRefused, match="more rows than go into one request"):
            await sequence.pass_on(0, huge)
        assert engine.waiting_calls == 0
        assert (await sequence.pass_on(0, np.ones((2, 32), np.float32))).shape == (2, 32)


async def test_a_file_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    nonsense = tmp_path / "x.gguf"
    nonsense.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(errors.ModelRefused, match=r"x\.gguf: not loaded"):
        await vocabulary_of(nonsense, tmp_path / "log")
