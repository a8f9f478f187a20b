"""Pieces between real sessions: who has what, who lies, who is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_HEADER, PIECE_OUTPUT, Piece
from dllm_protocol.model_package.errors import LayersRefused, PieceRefused
from dllm_protocol.model_package.torrent import SPAN_BYTES_MIN, span_count
from local_worker.packages.assembling import assemble
from local_worker.packages.errors import DiskFull, OutputRefused
from local_worker.packages.package import MANIFEST_FILE, load_package, piece_path, verify_piece
from local_worker.packages.spans import spans_path
from local_worker.swarm.errors import FetchStalled, NoSourceLeft, SourcesLied
from local_worker.swarm.fetching import fetch
from local_worker.swarm.partial_files import partial_path
from local_worker.swarm.sources import Limits, Place, Sources, numeric_place
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model
from tests.local_worker.swarm.rig import (
    IDLE_S,
    LOOPBACK,
    Made,
    WebServer,
    a_swarm,
    get,
    held,
    overwritten,
    part_of,
    seeding,
    serving,
)


def test_the_package_here_has_pieces_of_one_span_and_of_several(made: Made) -> None:
    counts = {span_count(piece.size_bytes) for piece in made.manifest.pieces}
    assert 1 in counts and max(counts) >= 4


def test_three_workers_fetch_their_layers_from_each_other_and_nothing_else(
    made: Made, tmp_path: Path
) -> None:
    """Nobody has the whole model. The third's layers come from two; each chunk is the one of the whole package."""
    first, second = part_of(made, 0, 2, tmp_path / "first"), part_of(made, 2, 4, tmp_path / "second")
    third = tmp_path / "third"
    with seeding(first) as (_, at_first), seeding(second) as (_, at_second):
        done = get(made, (1, 3), third, peers=[at_first, at_second])
        assert held(third) == made.roots(1, 3)
        assert (done.piece_count, done.size_bytes, done.kept_bytes) == (3, made.bytes_of(1, 3), 0)
        assert done.refused == {}
        with seeding(third) as (_, at_third):
            get(made, (2, 3), first, peers=[at_third])
            get(made, (1, 2), second, peers=[at_third])
    assert held(first) == made.roots(0, 3) - {made.piece(PIECE_OUTPUT).root.hex()}
    assert held(second) == made.roots(1, 4)
    for package, layers in ((first, (0, 3)), (second, (1, 4)), (third, (1, 3))):
        assert load_package(package) == made.manifest
        assemble(package, made.manifest, *layers, tmp_path / "got.gguf")
        assemble(made.folder, made.manifest, *layers, tmp_path / "wanted.gguf")
        assert (tmp_path / "got.gguf").read_bytes() == (tmp_path / "wanted.gguf").read_bytes()


def test_a_web_seed_alone_is_enough_and_is_asked_for_no_other_layers(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(WebServer(made.folder)) as server:
        get(made, (2, 4), out, web_seeds=[server.url])
    roots = made.roots(2, 4)
    assert held(out) == roots
    spans = {root for root in roots if (made.folder / "spans" / root).exists()}
    assert server.paths() == {f"pieces/{root}" for root in roots} | {f"spans/{root}" for root in spans}
    assert "user-agent" not in server.headers
    # So that whoever has fetched can be a web seed too.
    assert {one.name for one in (out / "spans").iterdir()} == spans
    assert not (out / "fetching").exists()


def test_what_came_from_peers_can_be_a_web_seed(made: Made, tmp_path: Path) -> None:
    with seeding(made.folder) as (_, place):
        get(made, (1, 2), tmp_path / "one", peers=[place])
    with serving(WebServer(tmp_path / "one")) as server:
        get(made, (1, 2), tmp_path / "two", web_seeds=[server.url])
    assert held(tmp_path / "two") == made.roots(1, 2)


def test_the_last_layers_of_a_tied_model_come_with_its_embedding(tmp_path: Path) -> None:
    """It is their output matrix, which nothing but the header says; from a web seed, and from who fetched there."""
    model = write_model(tmp_path / "model.gguf", SHAPES["qwen2, tied"])
    tied = Made(tmp_path / "package", packed(model, tmp_path / "package"), is_tied=True)
    with serving(WebServer(tied.folder)) as server:
        get(tied, (2, 4), tmp_path / "one", web_seeds=[server.url])
    with seeding(tmp_path / "one") as (_, place):
        get(tied, (2, 4), tmp_path / "two", peers=[place])
    assemble(tied.folder, tied.manifest, 2, 4, tmp_path / "wanted.gguf")
    for package in (tmp_path / "one", tmp_path / "two"):
        assert held(package) == tied.roots(2, 4) >= {tied.piece(PIECE_EMBEDDING).root.hex()}
        assemble(package, tied.manifest, 2, 4, tmp_path / "got.gguf")
        assert (tmp_path / "got.gguf").read_bytes() == (tmp_path / "wanted.gguf").read_bytes()


def lying_about_blocks(path: str, data: bytes) -> bytes:
    """Another byte in every span of everything large that is a piece."""
    if not path.startswith("pieces/") or len(data) < 1 << 20:
        return data
    bent = bytearray(data)
    for at in range(0, len(bent), SPAN_BYTES_MIN):
        bent[at] ^= 1
    return bytes(bent)


def slowly(_path: str, data: bytes) -> bytes:
    """So that the other one gets its turn to lie."""
    time.sleep(0.3)
    return data


def test_a_lying_web_seed_is_refused_and_the_honest_one_used(made: Made, tmp_path: Path) -> None:
    said: list[str] = []
    with (
        serving(WebServer(made.folder, lying_about_blocks)) as liar,
        serving(WebServer(made.folder, slowly)) as honest,
    ):
        done = get(made, (0, 4), tmp_path / "out", web_seeds=[liar.url, honest.url], said=said)
    assert held(tmp_path / "out") == made.roots(0, 4)
    assert done.refused == {liar.url: "it sent bytes that the manifest does not name"}
    assert done.wasted_bytes > 0
    assert any(line.startswith(f"no longer asked: {liar.url}") for line in said)
    for piece in made.manifest.pieces:
        verify_piece(tmp_path / "out", piece)


def test_a_lying_web_seed_alone_gives_nothing(made: Made, tmp_path: Path) -> None:
    with serving(WebServer(made.folder, lying_about_blocks)) as liar, pytest.raises(SourcesLied) as failed:
        get(made, (1, 2), tmp_path / "out", web_seeds=[liar.url])
    assert "block 1" in failed.value.message and liar.url in failed.value.message
    assert held(tmp_path / "out") == {made.piece(PIECE_HEADER).root.hex()}
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()


def test_a_web_seed_may_lead_elsewhere_and_is_believed_no_more_there(made: Made, tmp_path: Path) -> None:
    with (
        serving(WebServer(made.folder)) as honest,
        serving(WebServer(made.folder, lying_about_blocks)) as liar,
        serving(WebServer(made.folder)) as sign,
    ):
        sign.elsewhere = honest.url
        get(made, (1, 2), tmp_path / "out", web_seeds=[sign.url])
        sign.elsewhere = liar.url
        with pytest.raises(SourcesLied, match="it sent bytes"):
            get(made, (1, 2), tmp_path / "other", web_seeds=[sign.url])
    assert held(tmp_path / "out") == made.roots(1, 2)
    assert len(held(tmp_path / "other")) == 1


def test_hashes_of_spans_that_do_not_lead_to_the_root_make_a_liar(made: Made, tmp_path: Path) -> None:
    def bend(path: str, data: bytes) -> bytes:
        return bytes((data[0] ^ 1,)) + data[1:] if path.startswith("spans/") else data

    with (
        serving(WebServer(made.folder, bend)) as liar,
        serving(WebServer(made.folder)) as honest,
    ):
        done = get(made, (1, 2), tmp_path / "out", web_seeds=[liar.url, honest.url])
        assert list(done.refused) == [liar.url] and "lead to root" in done.refused[liar.url]
        with pytest.raises(SourcesLied, match="lead to root"):
            get(made, (1, 2), tmp_path / "other", web_seeds=[liar.url])
    assert held(tmp_path / "out") == made.roots(1, 2)
    block = made.piece(PIECE_BLOCK, 1).root.hex()
    assert f"pieces/{block}" not in liar.paths()


def test_a_web_seed_without_hashes_of_spans_is_not_used_for_what_needs_them(
    made: Made, tmp_path: Path
) -> None:
    bare = part_of(made, 1, 2, tmp_path / "bare")
    with serving(WebServer(bare)) as server, pytest.raises(NoSourceLeft, match="404") as failed:
        get(made, (1, 2), tmp_path / "out", web_seeds=[server.url])
    assert f"spans/{made.piece(PIECE_BLOCK, 1).root.hex()}" in failed.value.hint


def test_peers_say_what_a_web_seed_without_hashes_of_spans_is_checked_by(made: Made, tmp_path: Path) -> None:
    """The peer alone would be far too slow."""
    bare = part_of(made, 1, 2, tmp_path / "bare")
    with (
        serving(WebServer(bare)) as server,
        seeding(made.folder, Limits(upload_bytes_per_s=65_536)) as (_, place),
    ):
        get(made, (1, 2), tmp_path / "out", peers=[place], web_seeds=[server.url])
    assert held(tmp_path / "out") == made.roots(1, 2)
    assert server.sent_bytes > made.bytes_of(1, 2) // 2


@contextmanager
def a_lying_peer(made: Made, folder: Path, block: Piece) -> Iterator[Place]:
    """It is honest while libtorrent looks, and has other bytes on its disk when it is asked."""
    bent = Path(shutil.copytree(made.folder, folder))
    with a_swarm(listen=LOOPBACK) as lying:
        lying._add(
            block, lying._parameters(block, bent / "pieces", None), lying._lt.torrent_flags.update_subscribe
        )
        deadline = time.monotonic() + 60
        while not lying.transfer(block).is_complete:
            lying.poll(50)
            assert time.monotonic() < deadline
        for at in range(0, block.size_bytes, 1 << 17):
            overwritten(bent, block, at)
        assert lying.listens_at is not None
        yield lying.listens_at


def test_a_lying_peer_is_refused_and_the_honest_one_used(made: Made, tmp_path: Path) -> None:
    block = made.piece(PIECE_BLOCK, 1)
    with (
        seeding(made.folder) as (_, honest),
        a_lying_peer(made, tmp_path / "bent", block) as lying,
    ):
        liar = numeric_place(*lying)
        get(made, (1, 2), tmp_path / "header", peers=[honest])
        header_only = tmp_path / "alone"
        shutil.copytree(tmp_path / "header", header_only)
        piece_path(header_only, block).unlink()
        with pytest.raises(
            SourcesLied, match=f"block 1.*{liar}: it sent bytes that the manifest does not name"
        ):
            get(made, (1, 2), header_only, peers=[lying])
        assert not piece_path(header_only, block).exists()
        done = get(made, (1, 2), header_only, peers=[lying, honest])
    verify_piece(header_only, block)
    assert set(done.refused) <= {liar}


def test_a_liar_is_found_alone_and_takes_nothing_away(made: Made, tmp_path: Path) -> None:
    """Where others may come by themselves, a liar is asked a second time; what was right on the disk stays."""
    out, block = tmp_path / "out", made.piece(PIECE_BLOCK, 1)
    partial, half = partial_path(out, block), block.size_bytes // 2
    said: list[str] = []
    with (
        seeding(made.folder) as (_, honest),
        a_lying_peer(made, tmp_path / "bent", block) as lying,
        a_swarm(listen=LOOPBACK) as swarm,
    ):
        liar = numeric_place(*lying)
        get(made, (0, 1), out, peers=[honest])
        shutil.copytree(made.folder / "spans", out / "spans", dirs_exist_ok=True)
        partial.parent.mkdir(exist_ok=True)
        partial.write_bytes(piece_path(made.folder, block).read_bytes()[:half])
        with pytest.raises(SourcesLied, match=f"{liar}: it sent bytes that the manifest does not name"):
            fetch(swarm, made.manifest, 1, 2, out, Sources((lying,)), IDLE_S, said.append)
        assert f"asked alone for block 1: {liar}" in said
        done = get(made, (1, 2), out, peers=[honest])
    verify_piece(out, block)
    # The header is there, the output is not a part of these layers.
    assert done.fetched_bytes <= block.size_bytes - half + SPAN_BYTES_MIN, done


def test_a_fetch_that_was_killed_goes_on_where_it_was(made: Made, tmp_path: Path) -> None:
    """SIGKILL in the middle of a block; what had come is not fetched again."""
    out, block = tmp_path / "out", made.piece(PIECE_BLOCK, 1)
    with seeding(made.folder, Limits(upload_bytes_per_s=1_500_000)) as (_, place):
        words = ("fetch", f"--out={out}", "--layers=1:2", f"--peer={numeric_place(*place)}", "--json")
        command = [sys.executable, "-m", "local_worker.package_commands", *words, str(made.folder)]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = out / "fetching" / block.root.hex()
        while first.poll() is None and not (partial.exists() and partial.stat().st_blocks * 512 > 900_000):
            time.sleep(0.02)
        assert first.poll() is None, "it ended before it could be killed"
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert partial.exists() and not piece_path(out, block).exists() and not (out / MANIFEST_FILE).exists()
        again = subprocess.run(command, capture_output=True, check=True)
        done = json.loads(again.stdout)["data"]
    verify_piece(out, block)
    assert held(out) == made.roots(1, 2)
    assert done["fetched_bytes"] <= block.size_bytes - 250_000, done
    assert done["kept_bytes"] == made.piece(PIECE_HEADER).size_bytes


def test_bytes_left_from_before_are_believed_no_more_than_others(made: Made, tmp_path: Path) -> None:
    """Half of a block is there, and a part of that half is wrong: only what is wrong or missing is fetched."""
    out, block = tmp_path / "out", made.piece(PIECE_BLOCK, 2)
    half = bytearray(piece_path(made.folder, block).read_bytes()[: block.size_bytes // 2])
    half[10] ^= 1
    partial = out / "fetching" / block.root.hex()
    partial.parent.mkdir(parents=True)
    partial.write_bytes(half)
    with serving(WebServer(made.folder)) as server:
        done = get(made, (2, 3), out, web_seeds=[server.url])
    verify_piece(out, block)
    assert block.size_bytes // 2 < done.fetched_bytes < block.size_bytes * 3 // 4 + (1 << 19)


def test_a_damaged_piece_is_fetched_again(made: Made, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made.folder, tmp_path / "out"))
    block = made.piece(PIECE_BLOCK, 3)
    overwritten(out, block, 5)
    spans_path(out, made.piece(PIECE_BLOCK, 0)).write_bytes(b"nonsense")
    with seeding(made.folder) as (_, place):
        done = get(made, (0, 4), out, peers=[place])
    verify_piece(out, block)
    assert done.kept_bytes == made.bytes_of(0, 4) - block.size_bytes
    assert spans_path(out, made.piece(PIECE_BLOCK, 0)).stat().st_size % 32 == 0


def test_what_nobody_has_is_told_by_name(made: Made, tmp_path: Path) -> None:
    part = part_of(made, 0, 2, tmp_path / "part")
    with serving(WebServer(part)) as server, pytest.raises(NoSourceLeft) as failed:
        get(made, (2, 3), tmp_path / "out", web_seeds=[server.url])
    assert "block 2" in failed.value.message and server.url in failed.value.message
    with seeding(part) as (_, place), pytest.raises(FetchStalled) as stalled:
        get(made, (2, 4), tmp_path / "other", peers=[place], idle_s=1.5)
    assert (
        "block 2, block 3, output" in stalled.value.message and numeric_place(*place) in stalled.value.message
    )
    assert "kept" in stalled.value.hint


def test_a_trickle_counts_as_nothing(made: Made, tmp_path: Path) -> None:
    """Less than is asked of a source in the idle time; the bytes do come."""
    with seeding(made.folder, Limits(upload_bytes_per_s=16_384)) as (seeder, place):
        with pytest.raises(FetchStalled, match="less than 65536 bytes came in 2 s"):
            get(made, (1, 2), tmp_path / "out", peers=[place], idle_s=2.0)
        assert seeder.uploaded_bytes() > 0


def test_a_fetch_that_listens_serves_what_it_has(made: Made, tmp_path: Path) -> None:
    with seeding(made.folder) as (_, place), a_swarm(listen=LOOPBACK) as swarm:
        fetch(swarm, made.manifest, 1, 2, tmp_path / "out", Sources((place,)), IDLE_S, lambda _: None)
        assert swarm.listens_at is not None
        get(made, (1, 2), tmp_path / "other", peers=[swarm.listens_at])
    assert held(tmp_path / "other") == made.roots(1, 2)


def test_links_in_the_way_lead_nowhere(made: Made, tmp_path: Path) -> None:
    """Links where a piece is to lie, or its bytes are to be gathered, are replaced and not followed."""
    out, victim, block = tmp_path / "out", tmp_path / "victim", made.piece(PIECE_BLOCK, 1)
    victim.write_bytes(b"precious")
    for folder in ("fetching", "pieces"):
        (out / folder).mkdir(parents=True)
        (out / folder / block.root.hex()).symlink_to(victim)
    header = made.piece(PIECE_HEADER)
    os.link(victim, out / "fetching" / header.root.hex())
    with seeding(made.folder) as (_, place):
        get(made, (1, 2), out, peers=[place])
    assert victim.read_bytes() == b"precious"
    for piece in (block, header):
        assert not piece_path(out, piece).is_symlink()
        verify_piece(out, piece)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "pieces").symlink_to(tmp_path)
    with pytest.raises(OutputRefused, match="is a link"):
        get(made, (1, 2), linked, peers=[("127.0.0.1", 1)])


def test_places_that_are_no_package_of_this_model(made: Made, tmp_path: Path) -> None:
    nobody = [("127.0.0.1", 1)]
    other = Path(shutil.copytree(made.folder, tmp_path / "other"))
    (other / MANIFEST_FILE).write_bytes(replace(made.manifest, licence="MIT").encode())
    with pytest.raises(VerificationFailed, match="has manifest"):
        get(made, (1, 2), other, peers=nobody)
    home = tmp_path / "home"
    home.mkdir()
    (home / "letters").touch()
    with pytest.raises(OutputRefused, match="has other things in it"):
        get(made, (1, 2), home, peers=nobody)
    with pytest.raises(LayersRefused):
        get(made, (2, 9), tmp_path / "out", peers=nobody)
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_could_not_be_stored_is_refused(made: Made, tmp_path: Path) -> None:
    pieces = made.manifest.pieces
    twice = replace(pieces[2], root=pieces[3].root, size_bytes=pieces[3].size_bytes + 1)
    for bad, error in (
        (twice, VerificationFailed),
        (replace(pieces[2], size_bytes=0), PieceRefused),
        (replace(pieces[2], size_bytes=(1 << 40) + 1), PieceRefused),
    ):
        hostile = Made(made.folder, replace(made.manifest, pieces=(*pieces[:2], bad, *pieces[3:])))
        with pytest.raises(error):
            get(hostile, (0, 1), tmp_path / "out", peers=[("127.0.0.1", 1)])
    assert not (tmp_path / "out").exists()


def test_one_fetch_at_a_time_fills_a_folder(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def second(_line: str) -> None:
        with pytest.raises(OutputRefused, match="another fetch is filling"):
            get(made, (1, 2), out, peers=[("127.0.0.1", 1)])
        tried.append(True)

    tried: list[bool] = []
    with (
        serving(WebServer(made.folder, lying_about_blocks)) as liar,
        a_swarm() as swarm,
        pytest.raises(SourcesLied),
    ):
        fetch(swarm, made.manifest, 1, 2, out, Sources((), (liar.url,)), IDLE_S, second)
    assert tried


def test_room_on_the_disk_is_looked_for_before_anything_is_fetched(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with serving(WebServer(made.folder)) as server:
        get(made, (1, 2), out, web_seeds=[server.url])
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
        asked = len(server.asked)
        with pytest.raises(DiskFull, match="2000000 are free"):
            get(made, (1, 3), out, web_seeds=[server.url])
        assert len(server.asked) == asked
