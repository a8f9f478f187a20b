"""How far logits move when rows are decoded one by one, or several in a batch: the measure of a close call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.random_model import make_random_llama
from dllm_chat.session.turn import CLOSE_LOGITS
from local_worker.engine.client import Engine
from local_worker.model_files import packaged_model

TOP_K = 8
ROWS = 48
PACKAGED_CLOSE_LOGITS = 0.01
"""What the packaged model's logits, and those of f32 weights, stay far below."""


def model_called(which: str, folder: Path, tiny: Path) -> Path:
    """The packaged model, one in f32, or one whose weights make every rounding a larger step."""
    if which == "packaged":
        return packaged_model()
    if which == "f32":
        return tiny
    return make_random_llama(
        folder / "q8.gguf", layers=12, n_embd=512, n_ff=1024, heads=8, kv_heads=2, vocab_size=4096, seed=5
    )


@pytest.mark.parametrize(
    ("which", "limit"),
    [("packaged", PACKAGED_CLOSE_LOGITS), ("f32", PACKAGED_CLOSE_LOGITS), ("q8_0", CLOSE_LOGITS)],
)
@pytest.mark.parametrize("rows", [16, ROWS], ids=["window", "replay"])
async def test_another_shape_moves_logits_by_less_than_a_close_call(
    tmp_path: Path, tiny_model: Path, which: str, limit: float, rows: int
) -> None:
    """Half of it, so that two tokens that move towards each other do not change places unnoticed."""
    engine = await Engine.start(
        model_called(which, tmp_path, tiny_model),
        context_rows=256,
        sequences=2,
        threads=1,
        log_path=tmp_path / "engine.log",
    )
    try:
        text = "DLLM is a network for chatting with language models that nobody owns. You pay per token."
        ids = (await engine.tokenize(text))[:ROWS] if which == "packaged" else list(range(300, 300 + ROWS))
        one, other = engine.open_sequence(), engine.open_sequence()
        apart = [
            row
            for at, token in enumerate(ids)
            for row in await one.decode(at, [token], top_k=TOP_K, outputs="all")
        ]
        together = []
        for at in range(0, len(ids), rows):
            together += await other.decode(at, ids[at : at + rows], top_k=TOP_K, outputs="all")
    finally:
        await engine.close()
    assert len(apart) == len(together) == len(ids) > 16
    moved = 0.0
    for single, batched in zip(apart, together, strict=True):
        assert np.isfinite(single.logits).all()
        found = dict(zip(batched.ids.tolist(), batched.logits.tolist(), strict=True))
        for token, logit in zip(single.ids.tolist(), single.logits.tolist(), strict=True):
            moved = max(moved, abs(logit - found.get(token, logit)))
    print(f"{which}: logits moved by at most {moved:.2g}")
    assert 2 * moved < limit <= CLOSE_LOGITS
