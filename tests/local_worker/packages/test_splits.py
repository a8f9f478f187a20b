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
from local_worker.model_files import packaged_model
from tests.local_worker.packages.chains import STEPS, cuts_of, differences, spoken, workshop
from tests.local_worker.packages.tiny_models import SHAPES, write_model


def _few_cuts(layers: int) -> list[tuple[int, ...]]:
    """One, two and three chunks, each block once alone or at an edge."""
    middle = layers // 2
    return [
        (0, layers),
        (0, 1, layers),
        (0, middle, layers),
        (0, 1, middle + 1, layers),
        (0, middle, layers - 1, layers),
    ]


@pytest.mark.parametrize("name", SHAPES)
def test_chunks_say_what_the_whole_says(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES[name])
    with workshop(model, tmp_path) as shop:
        whole = spoken([shop.whole])
        assert len({int(np.argmax(row)) for step in whole for part in step for row in part}) > 20
        for cut in _few_cuts(SHAPES[name].layers):
            assert differences(whole, spoken(shop.chain(cut))) == [], cut


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_logits_of_last_rows_only(name: str, tmp_path: Path) -> None:
    """As prompts are decoded: parts of unequal length, of which some computations want no logits at all."""
    model = write_model(tmp_path / "model.gguf", SHAPES[name])
    with workshop(model, tmp_path) as shop:
        whole = spoken([shop.whole], only_last=True)
        assert [[len(part) for part in step] for step in whole] == [[1] * len(step) for step in STEPS]
        assert differences(whole, spoken(shop.chain((0, 1, 3, SHAPES[name].layers)), only_last=True)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", [2, 3])
def test_every_split_says_what_the_whole_says(name: str, seed: int, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES[name])
    with workshop(model, tmp_path) as shop:
        whole = spoken([shop.whole], seed)
        for cut in cuts_of(SHAPES[name].layers, SHAPES[name].layers):
            assert differences(whole, spoken(shop.chain(cut), seed)) == [], cut


def test_a_trained_model_in_chunks_says_what_the_whole_says(tmp_path: Path) -> None:
    with workshop(packaged_model(), tmp_path) as shop:
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
    with workshop(model, tmp_path) as shop:
        whole = spoken([shop.whole])
        assert differences(whole, spoken(shop.chain((0, 6, 8)))) == []
        assert differences(whole, spoken(shop.chain((0, 3, 8))))


def test_hidden_states_that_are_scaled_on_entering_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "OVERWRITTEN_ENTRIES", {})
    model = write_model(tmp_path / "model.gguf", SHAPES["gemma2"])
    with workshop(model, tmp_path) as shop:
        assert differences(spoken([shop.whole]), spoken(shop.chain((0, 2, 5))))


def test_a_factor_that_multiplies_hidden_states_again_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "f32", lambda _: f32(12.3))
    model = write_model(tmp_path / "model.gguf", SHAPES["granite"])
    with workshop(model, tmp_path) as shop:
        assert differences(spoken([shop.whole]), spoken(shop.chain((0, 2, 4))))


def test_rotary_factors_that_are_left_out_would_be_noticed(tmp_path: Path) -> None:
    with_factors = write_model(tmp_path / "a.gguf", SHAPES["llama, rotary factors"])
    without = write_model(tmp_path / "b.gguf", SHAPES["llama"])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with workshop(with_factors, tmp_path / "a") as one, workshop(without, tmp_path / "b") as other:
        assert differences(spoken([one.whole]), spoken([other.whole]))


def test_a_whole_model_that_was_cut_and_put_together_is_the_same_model(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES["llama"])
    with workshop(model, tmp_path) as shop:
        (again,) = shop.chain((0, 4))
        assert again.role.is_whole
        assert again.info() == shop.whole.info()
        assert again.vocabulary() == shop.whole.vocabulary()
