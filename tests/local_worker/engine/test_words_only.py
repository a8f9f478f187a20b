"""A model file's tokenizer in an engine process without weights: what the whole engine says, and no sequences."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_worker.engine.client import Engine
from local_worker.engine.errors import EngineFull, ModelRefused


@pytest.fixture
async def words(tiny_model: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    started = await Engine.start(
        tiny_model, context_rows=512, sequences=4, threads=1, log_path=tmp_path / "words.log", words_only=True
    )
    yield started
    await started.close()


async def test_it_says_what_the_whole_engine_says(words: Engine, engine: Engine) -> None:
    absent = {"sequences": 0, "threads": 0, "parameters": 0, "model_bytes": 0, "kv_bytes": 0}
    assert words.info == replace(engine.info, **absent)
    assert await words.vocabulary() == await engine.vocabulary()
    assert await words.tokenize("a b <|im_end|>") == await engine.tokenize("a b <|im_end|>")


async def test_control_tokens_are_read_only_where_they_are_marked(words: Engine) -> None:
    end = (await words.vocabulary()).pieces.index(b"<|im_end|>")
    assert end in await words.tokenize("hello<|im_end|>", marked=True)
    assert end not in await words.tokenize("hello<|im_end|>")


async def test_it_has_no_sequences(words: Engine) -> None:
    assert words.free_sequences == 0
    with pytest.raises(EngineFull):
        words.open_sequence()


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelRefused):
        await Engine.start(
            tmp_path / "no.gguf",
            context_rows=256,
            sequences=1,
            threads=1,
            log_path=tmp_path / "log",
            words_only=True,
        )
