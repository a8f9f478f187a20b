"""How many layers fit, and how fast an engine is."""

from __future__ import annotations

import itertools
from pathlib import Path

import llama_cpp
import pytest

from dllm_protocol.gguf.head import Head
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_HEADER, PIECE_OUTPUT, Manifest
from local_worker.capacity import DEVICE_RESERVE_BYTES, RESERVE_BYTES, Needs, needs_of
from local_worker.card_memory import free_card_bytes, read_free_bytes
from local_worker.engine.client import Engine
from local_worker.measuring import RoomFor, layers_that_fit, measured_speed
from local_worker.memory import FreeMemory
from local_worker.packages.assembling import assemble
from local_worker.packages.package import read_piece_head
from tests.local_worker.packages.chains import packed, quiet
from tests.local_worker.packages.tiny_models import SHAPES, write_model

LAYERS = 4
TICK_NS = 50_000_000


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A llama of four layers in pieces."""
    folder = tmp_path_factory.mktemp("package") / "package"
    return folder, packed(
        write_model(tmp_path_factory.mktemp("model") / "four.gguf", SHAPES["llama"]), folder
    )


def header_of(folder: Path, manifest: Manifest) -> Head:
    piece = next(one for one in manifest.pieces if one.kind == PIECE_HEADER)
    return read_piece_head(folder, piece)[0]


def taken_by(manifest: Manifest, header: Head, *, rows: int) -> tuple[Needs, int, int]:
    """What the model needs; bytes of all but its layers, and of each layer with so many rows."""
    needs = needs_of(header)
    size = {piece.kind: piece.size_bytes for piece in manifest.pieces}
    rest = RESERVE_BYTES + needs.batch_bytes + size[PIECE_EMBEDDING] + size[PIECE_OUTPUT]
    return needs, rest, size[PIECE_BLOCK] + rows * needs.kv_row_bytes // LAYERS


def test_as_many_layers_fit_as_memory_beside_the_rest_has_room_for(package: tuple[Path, Manifest]) -> None:
    manifest, header = package[1], header_of(*package)
    needs, rest, layer = taken_by(manifest, header, rows=3 * 256)
    room = RoomFor(sequences=3, context_rows=256)
    assert needs.kv_row_bytes > 0 and needs.batch_bytes > 0

    def fitting(free_bytes: int, room: RoomFor = room) -> int:
        return layers_that_fit(manifest, header, FreeMemory(free_bytes, "a test"), room)

    assert [fitting(rest + count * layer) for count in range(6)] == [0, 1, 2, 3, 4, 4]
    assert (fitting(rest + 3 * layer - 1), fitting(0)) == (2, 0)
    assert fitting(rest + layer, RoomFor(sequences=300, context_rows=256)) == 0, "sessions take their part"


def test_graphics_cards_take_layers_beside_what_memory_holds(package: tuple[Path, Manifest]) -> None:
    manifest, header = package[1], header_of(*package)
    needs, rest, layer = taken_by(manifest, header, rows=256)
    taken = DEVICE_RESERVE_BYTES + needs.batch_bytes

    def fitting(host_layers: int, card_bytes: int) -> int:
        free = FreeMemory(rest + host_layers * layer, "a test")
        return layers_that_fit(manifest, header, free, RoomFor(1, 256), card_bytes=card_bytes)

    assert [fitting(1, taken + count * layer) for count in range(5)] == [1, 2, 3, 4, 4]
    assert (fitting(1, 0), fitting(1, taken - 1), fitting(0, taken + layer)) == (1, 1, 1)


async def test_cards_are_asked_in_a_process_of_their_own() -> None:
    """Where llama.cpp was built without support there is none."""
    free_bytes = await free_card_bytes()
    assert llama_cpp.llama_supports_gpu_offload() or free_bytes == 0
    assert free_bytes >= 0


@pytest.mark.parametrize("module", ["local_worker.no_such_module", "local_worker.engine.frames"])
async def test_cards_that_do_not_answer_are_left_out_of_account(module: str) -> None:
    assert await free_card_bytes(module) == 0


@pytest.mark.parametrize(
    "said", [b"", b"{}", b"7", b"[1.5]", b"[true]", b"[-1]", b'["1"]', b"[1125899906842625]"]
)
def test_what_is_no_list_of_sizes_is_no_answer(said: bytes) -> None:
    with pytest.raises(ValueError):
        read_free_bytes(said)
    assert read_free_bytes(b"[]") == 0 and read_free_bytes(b"[3, 4]") == 7


@pytest.mark.parametrize("layers", [(0, 4), (0, 2), (1, 3), (3, 4)])
async def test_speed_counts_rows_of_all_sequences_through_each_layer(
    package: tuple[Path, Manifest], tmp_path: Path, layers: tuple[int, int]
) -> None:
    folder, manifest = package
    chunk = tmp_path / "chunk.gguf"
    assemble(folder, manifest, *layers, chunk, quiet)
    engine = await Engine.start(chunk, context_rows=256, sequences=2, threads=1, log_path=tmp_path / "log")
    try:
        ticks = itertools.count(step=TICK_NS)
        # Ten rounds of two rows take half a second by this clock, in which every look takes a twentieth.
        assert await measured_speed(engine, lambda: next(ticks)) == 40 * (layers[1] - layers[0])
        assert engine.free_sequences == 2
        assert await measured_speed(engine, lambda: 0) > 1, "a clock that stands still ends after some rounds"
    finally:
        await engine.close()
