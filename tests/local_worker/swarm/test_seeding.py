"""What is served, what is not, and what comes later."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_HEADER
from local_worker.packages.errors import PackageNotFound
from local_worker.packages.package import piece_path
from local_worker.packages.spans import read_spans, spans_path
from local_worker.swarm.errors import FetchStalled, NothingToSeed
from local_worker.swarm.seeding import Seeder, check_packages
from tests.local_worker.swarm.rig import LOOPBACK, Made, a_swarm, get, held, overwritten, part_of


def test_hashes_of_spans_that_are_missing_are_made(made: Made, tmp_path: Path) -> None:
    part = part_of(made, 1, 2, tmp_path / "part")
    block = made.piece(PIECE_BLOCK, 1)
    assert read_spans(part, block) is None
    with a_swarm(listen=LOOPBACK) as swarm:
        serving = Seeder(swarm, [part], lambda _: None).look()
    assert (serving.piece_count, serving.size_bytes) == (2, made.bytes_of(1, 2))
    assert read_spans(part, block) == spans_path(made.folder, block).read_bytes()


def test_pieces_that_come_later_are_served_too(made: Made, tmp_path: Path) -> None:
    part, block = part_of(made, 1, 2, tmp_path / "part"), made.piece(PIECE_BLOCK, 2)
    with a_swarm(listen=LOOPBACK) as swarm:
        seeder = Seeder(swarm, [part], lambda _: None)
        assert seeder.look().piece_count == 2
        shutil.copyfile(piece_path(made.folder, block), piece_path(part, block))
        assert seeder.look().piece_count == 3
        assert swarm.listens_at is not None
        get(made, (1, 3), tmp_path / "out", peers=[swarm.listens_at])
    assert held(tmp_path / "out") == made.roots(1, 3)


def test_a_piece_that_was_damaged_is_told_and_not_sent(made: Made, tmp_path: Path) -> None:
    """One is found out when its spans are made, the other when somebody asks for it."""
    part = part_of(made, 1, 3, tmp_path / "part")
    first, second = made.piece(PIECE_BLOCK, 1), made.piece(PIECE_BLOCK, 2)
    spans_path(part, second).parent.mkdir()
    shutil.copyfile(spans_path(made.folder, second), spans_path(part, second))
    for piece in (first, second):
        for at in range(0, piece.size_bytes, 1 << 17):
            overwritten(part, piece, at)
    said: list[str] = []
    with a_swarm(listen=LOOPBACK) as swarm:
        seeder = Seeder(swarm, [part], said.append)
        assert seeder.look().piece_count == 2
        assert len(said) == 1 and "block 1" in said[0] and "not what the manifest" in said[0]
        assert swarm.listens_at is not None
        with pytest.raises(FetchStalled):
            get(made, (2, 3), tmp_path / "out", peers=[swarm.listens_at], idle_s=2.0)
        deadline = time.monotonic() + 60
        seeder.run(lambda: len(said) > 1 or time.monotonic() > deadline)
        assert len(said) == 2 and "block 2" in said[1], said
        assert seeder.look().piece_count == 1
        piece_path(part, first).unlink()
        shutil.copyfile(piece_path(made.folder, first), piece_path(part, first))
        assert seeder.look().piece_count == 2 and len(said) == 2
    assert held(tmp_path / "out") == {made.piece(PIECE_HEADER).root.hex()}


def test_what_is_no_package(tmp_path: Path, made: Made) -> None:
    with a_swarm(listen=LOOPBACK) as swarm, pytest.raises(PackageNotFound):
        Seeder(swarm, [made.folder, tmp_path], lambda _: None).look()
    for packages in ([], [tmp_path] * 65):
        with pytest.raises(NothingToSeed, match=f"{len(packages)} packages"):
            check_packages(packages)


def test_links_are_not_served(made: Made, tmp_path: Path) -> None:
    part, block = part_of(made, 1, 2, tmp_path / "part"), made.piece(PIECE_BLOCK, 1)
    piece_path(part, block).unlink()
    piece_path(part, block).symlink_to(piece_path(made.folder, block))
    with a_swarm(listen=LOOPBACK) as swarm:
        assert Seeder(swarm, [part], lambda _: None).look().piece_count == 1
