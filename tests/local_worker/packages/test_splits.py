"""Every split of a model says what the whole says, bit for bit: the claim that the allow-list of architectures rests
on. llama.cpp runs in this process, on the same batches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllm_protocol.gguf.head import f32
from dllm_protocol.model_package import chunk
from dllm_protocol.model_package.architectures import ARCHITECTURES
from local_worker.engine import llama
from local_worker.engine.messages import Logits
from local_worker.model_files import packaged_model
from tests.local_worker.packages.chains import (
    CONTEXT_ROWS,
    ROOMY_ROWS,
    STEPS,
    cuts_of,
    differences,
    load,
    spoken,
    workshop,
)
from tests.local_worker.packages.tiny_models import SHAPES, write_model


def _few_cuts(layers: int) -> list[tuple[int, ...]]:
    """One, two and three chunks, and each block a chunk of its own; none twice, however few blocks there are."""
    middle = layers // 2
    cuts = [
        (0, layers),
        (0, 1, layers),
        (0, middle, layers),
        (0, 1, middle + 1, layers),
        (0, middle, layers - 1, layers),
        tuple(range(layers + 1)),
    ]
    return list(dict.fromkeys(cuts))


@pytest.mark.parametrize("name", SHAPES)
def test_chunks_say_what_the_whole_says(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES[name])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        whole = spoken([shop.whole])
        assert len({int(np.argmax(row)) for step in whole for part in step for row in part}) > 20
        for cut in _few_cuts(SHAPES[name].layers):
            assert differences(whole, spoken(shop.chain(cut))) == [], cut


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_logits_of_last_rows_only(name: str, tmp_path: Path) -> None:
    """As prompts are decoded: parts of unequal length, of which some computations want no logits at all."""
    model = write_model(tmp_path / "model.gguf", SHAPES[name])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        whole = spoken([shop.whole], only_last=True)
        assert [[len(part) for part in step] for step in whole] == [[1] * len(step) for step in STEPS]
        assert differences(whole, spoken(shop.chain((0, 1, 3, SHAPES[name].layers)), only_last=True)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", [2, 3])
def test_every_split_says_what_the_whole_says(name: str, seed: int, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES[name])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        whole = spoken([shop.whole], seed)
        for cut in cuts_of(SHAPES[name].layers, SHAPES[name].layers):
            assert differences(whole, spoken(shop.chain(cut), seed)) == [], cut


def test_a_trained_model_in_chunks_says_what_the_whole_says(tmp_path: Path) -> None:
    with workshop(packaged_model(), tmp_path, ROOMY_ROWS) as shop:
        whole = spoken([shop.whole])
        for cut in cuts_of(shop.manifest.layers, 3):
            assert differences(whole, spoken(shop.chain(cut))) == [], cut


def test_every_architecture_that_can_be_cut_has_a_model_here() -> None:
    assert {shape.arch for shape in SHAPES.values()} == set(ARCHITECTURES)


def test_windows_counted_by_the_chunk_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that lets llama.cpp work out the windows from its own blocks' numbers."""
    monkeypatch.setattr(chunk, "kept_windows", lambda found, kept, *more: dict(kept))
    model = write_model(tmp_path / "model.gguf", SHAPES["gemma3"])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        whole = spoken([shop.whole])
        assert differences(whole, spoken(shop.chain((0, 6, 8)))) == []
        assert differences(whole, spoken(shop.chain((0, 3, 8))))


def test_hidden_states_that_are_scaled_on_entering_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "OVERWRITTEN_ENTRIES", {})
    model = write_model(tmp_path / "model.gguf", SHAPES["gemma2"])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        assert differences(spoken([shop.whole]), spoken(shop.chain((0, 2, 5))))


def test_a_factor_that_multiplies_hidden_states_again_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "f32", lambda _: f32(12.3))
    model = write_model(tmp_path / "model.gguf", SHAPES["granite"])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        assert differences(spoken([shop.whole]), spoken(shop.chain((0, 2, 4))))


def _of_the_whole(name: str, folder: Path, context_rows: int = ROOMY_ROWS) -> list[list[Logits]]:
    """What a model that is not cut says."""
    model = load(write_model(folder / "model.gguf", SHAPES[name]), context_rows)
    said = spoken([model])
    model.close()
    return said


@pytest.mark.parametrize(
    ("name", "plain"), [("llama, rotary factors", "llama"), ("gemma3, linear scaling", "gemma3")]
)
def test_rotary_factors_that_are_left_out_would_be_noticed(name: str, plain: str, tmp_path: Path) -> None:
    assert differences(_of_the_whole(name, tmp_path), _of_the_whole(plain, tmp_path))


def test_the_steps_stand_on_the_side_that_a_model_is_called_by(tmp_path: Path) -> None:
    """A context beyond 512 rows changes what the short one says from the first step on, and not the long one."""
    short, long = (
        [_of_the_whole(f"phi3, {side}", tmp_path, rows) for rows in (ROOMY_ROWS, ROOMY_ROWS + 256)]
        for side in ("short", "long")
    )
    assert differences(*short) == list(range(len(STEPS)))
    assert differences(*long) == []


def test_the_steps_go_beyond_the_rows_of_a_short_context() -> None:
    """By several of the widest window here, which has 32 rows, and from before it as well as wholly behind it."""
    beyond = [
        (first, first + count) for step in STEPS for _, first, count in step if first + count > CONTEXT_ROWS
    ]
    assert max(end for _, end in beyond) >= CONTEXT_ROWS + 3 * 32
    assert {first < CONTEXT_ROWS for first, _ in beyond} == {True, False}


def test_a_whole_model_that_was_cut_and_put_together_is_the_same_model(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES["llama"])
    with workshop(model, tmp_path, ROOMY_ROWS) as shop:
        (again,) = shop.chain((0, 4))
        assert again.role.is_whole
        assert again.info() == shop.whole.info()
        assert again.vocabulary() == shop.whole.vocabulary()
