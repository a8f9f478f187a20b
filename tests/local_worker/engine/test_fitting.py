"""What an engine is started with where there are graphics cards, where there are none, and where a person said so."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import pytest

from dllm_protocol.errors import UsageRefused
from local_worker.capacity import needs_of_file
from local_worker.engine.devices import Device, graphics_cards
from local_worker.engine.fitting import Wish, fit
from local_worker.engine.llama import library_folder
from local_worker.memory import FreeMemory
from local_worker.slice_flags import gpu_layers_of

FREE = FreeMemory(8 << 30, "a test")
CARD = Device("Some Card 9000", 24 << 30)


def test_without_a_card_everything_stays_on_the_cpu(tiny_model: Path) -> None:
    found = fit(tiny_model, Wish(), FREE, [])
    assert (found.gpu_layers, found.device) == (0, "")
    assert fit(tiny_model, Wish(gpu_layers=5), FREE, []).gpu_layers == 0


def test_a_large_card_takes_all_layers_and_the_output(tiny_model: Path) -> None:
    found = fit(tiny_model, Wish(), FREE, [CARD])
    assert found.gpu_layers == needs_of_file(tiny_model).layers + 1
    assert found.device == "Some Card 9000"


def test_a_person_decides_how_many_layers(tiny_model: Path) -> None:
    assert fit(tiny_model, Wish(gpu_layers=1), FREE, [CARD, CARD]).gpu_layers == 1
    assert fit(tiny_model, Wish(gpu_layers=1), FREE, [CARD, CARD]).device == "Some Card 9000 + Some Card 9000"
    none = fit(tiny_model, Wish(gpu_layers=0), FREE, [CARD])
    assert (none.gpu_layers, none.device) == (0, "")
    assert (
        fit(tiny_model, Wish(gpu_layers=1000), FREE, [CARD]).gpu_layers
        == needs_of_file(tiny_model).layers + 1
    )


def test_a_full_card_is_left_alone(tiny_model: Path) -> None:
    found = fit(tiny_model, Wish(), FREE, [Device("Full", 100 << 20)])
    assert (found.gpu_layers, found.device) == (0, "")


def test_what_is_no_model_is_left_to_llama(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF but not really")
    found = fit(tmp_path / "a.gguf", Wish(), FREE, [])
    assert (found.places.sequences, found.places.context_rows) == (1, 256)


def test_the_list_of_cards_agrees_with_llama() -> None:
    """No card without support; a llama.cpp for graphics cards may still run on a machine that has none."""
    cards = graphics_cards(library_folder())
    assert llama_cpp.llama_supports_gpu_offload() or cards == []
    assert all(card.name for card in cards)


@pytest.mark.parametrize(("text", "wanted"), [("auto", None), ("none", 0), ("0", 0), ("33", 33)])
def test_the_flag_is_a_number_or_a_word(text: str, wanted: int | None) -> None:
    assert gpu_layers_of(text) == wanted


@pytest.mark.parametrize("text", ["", "-1", "all", "1001", "3.5", "²"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageRefused, match="--gpu-layers"):
        gpu_layers_of(text)
