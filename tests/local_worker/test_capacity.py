"""How many sessions of how many rows fit, and how many layers a graphics card takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_worker.capacity import (
    DEFAULT_CONTEXT_ROWS,
    DEVICE_RESERVE_BYTES,
    LEAST_CONTEXT_ROWS,
    MOST_SEQUENCES,
    RESERVE_BYTES,
    Needs,
    NoRoom,
    Places,
    device_layers,
    needs_of_file,
    places,
)
from local_worker.engine.client import Engine
from local_worker.memory import FreeMemory
from tests.local_worker.packages.tiny_models import SHAPES, write_model

GIB = 1 << 30
SEVEN_BILLION = Needs(
    layers=32,
    layer_bytes=120 << 20,
    other_bytes=150 << 20,
    kv_row_bytes=128 << 10,
    batch_bytes=60 << 20,
    context_train=8192,
)


def free(size_bytes: int) -> FreeMemory:
    return FreeMemory(size_bytes, "a test")


async def test_the_head_says_what_the_engine_then_takes(tiny_model: Path, tmp_path: Path) -> None:
    needs = needs_of_file(tiny_model)
    engine = await Engine.start(
        tiny_model, context_rows=512, sequences=3, threads=1, log_path=tmp_path / "engine.log"
    )
    try:
        info = engine.info
    finally:
        await engine.close()
    assert needs.layers == info.layers
    assert needs.kv_row_bytes * 512 * 3 == info.kv_bytes
    assert needs.weight_bytes == info.model_bytes
    assert needs.context_train == info.context_train


async def test_an_engine_that_is_told_nothing_takes_what_fits(tiny_model: Path, tmp_path: Path) -> None:
    engine = await Engine.start(
        tiny_model, context_rows=None, sequences=None, threads=1, log_path=tmp_path / "engine.log"
    )
    try:
        assert engine.info.sequences == engine.free_sequences == MOST_SEQUENCES
        assert engine.info.context_rows == min(DEFAULT_CONTEXT_ROWS, needs_of_file(tiny_model).context_train)
        assert (engine.info.device, engine.info.gpu_layers) == ("", 0)
    finally:
        await engine.close()


def test_a_large_machine_takes_the_most_and_a_small_one_less() -> None:
    def fitting(gib: float) -> Places:
        return places(SEVEN_BILLION, free(int(gib * GIB)), sequences=None, context_rows=None)

    assert fitting(64) == Places(MOST_SEQUENCES, DEFAULT_CONTEXT_ROWS)
    assert fitting(7).context_rows == DEFAULT_CONTEXT_ROWS
    assert 2 <= fitting(7).sequences < MOST_SEQUENCES
    assert fitting(5.1) == Places(2, 2048)
    with pytest.raises(NoRoom, match="more than 4096 MiB"):
        fitting(4)


def test_what_a_person_named_is_kept() -> None:
    assert places(SEVEN_BILLION, free(0), sequences=3, context_rows=999) == Places(3, 999)
    assert places(SEVEN_BILLION, free(7 * GIB), sequences=None, context_rows=1024).context_rows == 1024
    assert places(SEVEN_BILLION, free(7 * GIB), sequences=6, context_rows=None).sequences == 6
    with pytest.raises(NoRoom):
        places(SEVEN_BILLION, free(7 * GIB), sequences=200, context_rows=None)


@given(
    free_bytes=st.integers(0, 1 << 38),
    layers=st.integers(1, 120),
    layer_bytes=st.integers(1 << 12, 1 << 31),
    kv_row_bytes=st.integers(64, 1 << 20),
    context_train=st.integers(0, 1 << 20),
    sequences=st.none() | st.integers(1, 256),
    context_rows=st.none() | st.integers(256, 1 << 17),
)
def test_what_is_promised_fits_beside_weights_and_reserve(
    free_bytes: int,
    layers: int,
    layer_bytes: int,
    kv_row_bytes: int,
    context_train: int,
    sequences: int | None,
    context_rows: int | None,
) -> None:
    if sequences is not None and context_rows is not None:
        return
    needs = Needs(layers, layer_bytes, 1 << 20, kv_row_bytes, 1 << 20, context_train)
    try:
        found = places(needs, free(free_bytes), sequences=sequences, context_rows=context_rows)
    except NoRoom:
        least = (context_rows or LEAST_CONTEXT_ROWS) * (sequences or 1) * kv_row_bytes
        reserve = max(RESERVE_BYTES, free_bytes // 8)
        assert needs.weight_bytes + needs.batch_bytes + least + reserve > free_bytes
        return
    taken = found.sequences * found.context_rows * kv_row_bytes
    assert taken + needs.weight_bytes + needs.batch_bytes + RESERVE_BYTES <= free_bytes
    assert found.sequences >= 1
    assert found.context_rows >= LEAST_CONTEXT_ROWS


def test_a_card_takes_as_many_layers_as_its_memory_holds() -> None:
    rows = 4096
    one = SEVEN_BILLION.layer_bytes + rows * SEVEN_BILLION.kv_row_bytes // 32
    room = DEVICE_RESERVE_BYTES + SEVEN_BILLION.batch_bytes
    assert device_layers(SEVEN_BILLION, 0, rows) == 0
    assert device_layers(SEVEN_BILLION, room + one - 1, rows) == 0
    assert device_layers(SEVEN_BILLION, room + 10 * one, rows) == 10
    assert device_layers(SEVEN_BILLION, room + 32 * one, rows) == 32
    everything = room + 32 * one + SEVEN_BILLION.other_bytes
    assert device_layers(SEVEN_BILLION, everything, rows) == 33, "the output too"


def test_layers_on_a_card_take_nothing_here() -> None:
    half = SEVEN_BILLION.without(16)
    assert half.kv_row_bytes == SEVEN_BILLION.kv_row_bytes // 2
    assert half.weight_bytes == SEVEN_BILLION.weight_bytes - 16 * SEVEN_BILLION.layer_bytes
    assert SEVEN_BILLION.without(33).weight_bytes == SEVEN_BILLION.other_bytes
    wide = places(SEVEN_BILLION.without(33), free(GIB), sequences=None, context_rows=None)
    assert wide == Places(MOST_SEQUENCES, DEFAULT_CONTEXT_ROWS)


@pytest.mark.parametrize(
    ("short_rows", "context_rows"),
    [(None, 4096), (8192, 4096), (4096, 4096), (2048, 2048), (1000, 768), (64, 256)],
)
def test_who_is_told_nothing_stands_where_all_others_do(short_rows: int | None, context_rows: int) -> None:
    """Whatever memory there is: on the short side of a model that computes otherwise from a length on."""
    found = places(
        replace(SEVEN_BILLION, short_rows=short_rows), free(64 * GIB), sequences=None, context_rows=None
    )
    assert found.context_rows == context_rows


def test_a_head_says_where_its_sides_part(tmp_path: Path) -> None:
    def middle(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_orig_ctx_len(512)
        writer.add_sliding_window(32)

    model = write_model(tmp_path / "model.gguf", replace(SHAPES["phi3, long"], more=middle))
    assert needs_of_file(model).short_rows == 512
    assert needs_of_file(write_model(tmp_path / "other.gguf", SHAPES["llama"])).short_rows is None
