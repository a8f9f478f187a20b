"""How far logits move when rows are decoded one by one, or several in a batch: the measure of a close call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllm_chat.session.turn import CLOSE_LOGITS
from local_worker.engine.client import Engine
from local_worker.model_files import packaged_model

TOP_K = 8
ROWS = 48


@pytest.mark.parametrize("which", ["packaged", "f32"])
async def test_a_window_moves_logits_by_less_than_a_close_call(
    tmp_path: Path, tiny_model: Path, which: str
) -> None:
    """Half of it, so that two tokens that move towards each other do not change places unnoticed."""
    engine = await Engine.start(
        packaged_model() if which == "packaged" else tiny_model,
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
        for at in range(0, len(ids), 16):
            together += await other.decode(at, ids[at : at + 16], top_k=TOP_K, outputs="all")
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
    assert 2 * moved < CLOSE_LOGITS
