"""A client's question through a line of real chunks: a standby with the same layers agrees, one without does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllm_protocol.messages import Output, pack_floats, pack_ids
from dllm_protocol.probing.questions import QUESTION_LOGITS, Answer, answer_of, judge, question
from local_worker.engine.messages import Hidden
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY, write_model
from tests.local_worker.probed import NearEngine, Probed, ProbedModels


async def asked(
    ids: list[int], files: list[Path], change: Callable[[Hidden], Hidden] | None = None
) -> Answer:
    """The answer of a line of three; ``change`` does the work of the one between."""
    first, between, last = (NearEngine(path) for path in files)
    try:
        hidden = await first.open_sequence().enter(0, ids)
        hidden = change(hidden) if change else await between.open_sequence().pass_on(0, hidden)
        rows = await last.open_sequence().leave(0, hidden, top_k=QUESTION_LOGITS, outputs="all")
    finally:
        for engine in (first, between, last):
            engine.end()
    return answer_of(
        [
            Output(1, row.position, pack_ids(row.ids.tolist()), pack_floats(row.logits.tolist()), bytes(4))
            for row in rows
        ]
    )


@pytest.mark.parametrize("name", ["llama", "gemma2"])
async def test_a_standby_is_told_from_one_that_only_says_so(
    name: str, probed_models: ProbedModels, tmp_path: Path
) -> None:
    made = probed_models(name)
    layers, arch = made.manifest.layers, made.manifest.architecture
    line = [
        made.chunk(first, end, tmp_path / f"{first}.gguf")
        for first, end in ((0, 1), (1, layers - 1), (layers - 1, layers))
    ]
    model = write_model(tmp_path / "model.gguf", replace(SHAPES[name], seed=8))
    manifest = await asyncio.to_thread(packed, model, tmp_path / "package")
    other = Probed(model, tmp_path / "package", manifest).chunk(1, layers - 1, tmp_path / "other.gguf")
    for number in range(4):
        ids = question(b"s" * 32, number, VOCABULARY)
        wanted = await asked(ids, line)
        same = judge(wanted, await asked(ids, line), arch)
        assert same.agrees and same.comparison.is_exact
        assert not judge(wanted, await asked(ids, [line[0], other, line[2]]), arch).agrees
        assert not judge(wanted, await asked(ids, line, lambda rows: np.zeros_like(rows) + 1), arch).agrees
        # An answer to another question, kept from before, is none to this one.
        again = await asked(question(b"s" * 32, number + 1, VOCABULARY), line)
        assert not judge(wanted, again, arch).agrees
