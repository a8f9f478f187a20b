"""The worker's side: children that fetch and serve, and end with whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.model_package.errors import LayersRefused
from local_worker.packages.errors import PackageNotFound
from local_worker.packages.package import load_package
from local_worker.swarm import Limits, SeedingProcess, ensure_pieces
from local_worker.swarm.errors import FetchStalled, SwarmGone
from local_worker.swarm.sources import place_from
from tests.local_worker.swarm.rig import LOOPBACK, Made, held

LIMITS = Limits(idle_s=30.0)


def children() -> set[str]:
    """Processes of ours that exchange pieces."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            is_ours = entry.name.isdecimal() and f"PPid:\t{os.getpid()}\n" in (entry / "status").read_text()
            if is_ours and b"local_worker.package_commands" in (entry / "cmdline").read_bytes():
                found.add(entry.name)
        except OSError:
            continue
    return found


async def test_pieces_are_served_and_fetched_by_children(made: Made, tmp_path: Path) -> None:
    said: list[str] = []
    async with SeedingProcess.of([made.folder], LOOPBACK, LIMITS) as seeding:
        assert seeding.piece_count == len(made.manifest.pieces)
        place = place_from(seeding.listens_at)
        done = await ensure_pieces(
            made.manifest, 1, 3, tmp_path / "out", [place], [], LIMITS, on_progress=said.append
        )
        assert (done.piece_count, done.size_bytes, done.refused) == (3, made.bytes_of(1, 3), {})
        again = await ensure_pieces(made.manifest, 1, 3, tmp_path / "out", [place], [], LIMITS)
        assert (again.kept_bytes, again.fetched_bytes) == (made.bytes_of(1, 3), 0)
        assert len(children()) == 1
    assert held(tmp_path / "out") == made.roots(1, 3)
    assert load_package(tmp_path / "out") == made.manifest
    assert not children()


async def test_what_goes_wrong_in_a_child_keeps_its_name(made: Made, tmp_path: Path) -> None:
    nobody = [("127.0.0.1", 1)]
    with pytest.raises(LayersRefused):
        await ensure_pieces(made.manifest, 2, 9, tmp_path / "out", nobody, [], LIMITS)
    with pytest.raises(FetchStalled, match=r"127\.0\.0\.1:1: nothing came"):
        await ensure_pieces(made.manifest, 1, 2, tmp_path / "out", nobody, [], replace(LIMITS, idle_s=1.0))
    with pytest.raises(VerificationFailed, match="pieces in another order"):
        bad = replace(made.manifest, pieces=made.manifest.pieces[1:])
        await ensure_pieces(bad, 1, 2, tmp_path / "out", nobody, [], LIMITS)
    with pytest.raises(PackageNotFound):
        async with SeedingProcess.of([tmp_path / "nowhere"], LOOPBACK, LIMITS):
            pass
    assert not children()


async def test_a_fetch_that_is_cancelled_leaves_no_child(made: Made, tmp_path: Path) -> None:
    began = asyncio.Event()
    fetching = asyncio.create_task(
        ensure_pieces(
            *(made.manifest, 1, 2, tmp_path / "out", [("127.0.0.1", 1)], [], LIMITS),
            on_progress=lambda _: began.set(),
        )
    )
    await began.wait()
    assert len(children()) == 1
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not children()


async def test_a_child_that_dies_is_noticed(made: Made, tmp_path: Path) -> None:
    async with SeedingProcess.of([made.folder], LOOPBACK, LIMITS) as seeding:
        (child,) = children()
        os.kill(int(child), signal.SIGKILL)
        assert await seeding.wait() == -signal.SIGKILL
    began = asyncio.Event()
    fetching = asyncio.create_task(
        ensure_pieces(
            *(made.manifest, 1, 2, tmp_path / "out", [("127.0.0.1", 1)], [], LIMITS),
            on_progress=lambda _: began.set(),
        )
    )
    await began.wait()
    (child,) = children()
    os.kill(int(child), signal.SIGKILL)
    with pytest.raises(SwarmGone, match="ended without an answer"):
        await fetching
