"""How many layers fit, and how fast an engine is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dllm_protocol.gguf.head import Head
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_HEADER, PIECE_OUTPUT, Manifest
from local_worker.capacity import RESERVE_BYTES, needs_of
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


def test_as_many_layers_fit_as_memory_beside_the_rest_has_room_for(package: tuple[Path, Manifest]) -> None:
    folder, manifest = package
    header = header_of(folder, manifest)
    needs = needs_of(header)
    size = {piece.kind: piece.size_bytes for piece in manifest.pieces}
    rest = RESERVE_BYTES + needs.batch_bytes + size[PIECE_EMBEDDING] + size[PIECE_OUTPUT]
    layer = size[PIECE_BLOCK] + 3 * 256 * needs.kv_row_bytes // LAYERS
    room = RoomFor(sequences=3, context_rows=256)
    assert needs.kv_row_bytes > 0 and needs.batch_bytes > 0

    def fitting(free_bytes: int, room: RoomFor = room) -> int:
        return layers_that_fit(manifest, header, FreeMemory(free_bytes, "a test"), room)

    assert [fitting(rest + count * layer) for count in range(6)] == [0, 1, 2, 3, 4, 4]
    assert (fitting(rest + 3 * layer - 1), fitting(0)) == (2, 0)
    assert fitting(rest + layer, RoomFor(sequences=300, context_rows=256)) == 0, "sessions take their part"


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
