"""Workers that fetch the pieces of their layers from each other: real engines, real libtorrent, a chain in memory."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.errors import UsageRefused, VerificationFailed
from dllm_protocol.holder_book import HolderEntry
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_HEADER, Piece, probe_of
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord
from local_worker.errors import ModelNotRegistered
from local_worker.holder_places import HolderPlaces
from local_worker.keys import create_keys
from local_worker.packages.errors import PackageNotFound
from local_worker.packages.package import load_package, piece_path, verify_piece
from local_worker.piece_exchange import Exchange, PackageSeeding, exchange_of
from local_worker.service import Service
from local_worker.status import read_status
from local_worker.swarm import Limits, Sources
from local_worker.swarm.errors import NobodySeeds, SourcesLied
from local_worker.swarm.sources import place_from
from tests.local_worker.clients import Client
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model
from tests.local_worker.swarm.rig import (
    LOOPBACK,
    Made,
    WebServer,
    held,
    overwritten,
    part_of,
    seeding,
    serving,
)
from tests.local_worker.swarm.test_hosting import children
from tests.local_worker.workers import RunningWorker, running_worker

NOWHERE = Path("no-such-model.gguf")
PATIENCE_S = 30.0
LIMITS = Limits(idle_s=30.0)


def registry_of(made: Made, home: Path) -> ChainDouble:
    """A chain that knows the model, as the worker of a new home sees it."""
    record = ModelRecord(b"\1" * 20, made.manifest, 1, MODEL_ACTIVE)
    return ChainDouble(create_keys(home).operator_address, models={made.manifest.name: record})


def asking(*, peers: tuple[str, ...] = (), web_seeds: tuple[str, ...] = ()) -> Exchange:
    return Exchange(Sources(tuple(place_from(one) for one in peers), web_seeds), limits=LIMITS)


def block(made: Made, index: int) -> Piece:
    return made.piece(PIECE_BLOCK, index)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110
            # What is waited for happens in another process.
            await asyncio.sleep(0.02)


async def seeds_at(service: Service) -> str:
    seeding = service._seeding
    assert seeding is not None
    await until(lambda: seeding.seeds_at != "")
    return (await service._current_status()).seeds_at


async def test_a_worker_with_an_empty_folder_fetches_its_layers_from_one_that_seeds(
    made: Made,
    tmp_path: Path,
) -> None:
    seed = Exchange(seed_at=LOOPBACK, limits=LIMITS)
    out, name = tmp_path / "fetched", made.manifest.name
    async with running_worker(tmp_path / "a", NOWHERE, package=made.folder, exchange=seed) as first:
        at = await seeds_at(first.service)
        first.service.status_file.write(await first.service._current_status())
        told = read_status(tmp_path / "a")
        assert told is not None and (told["seeds_at"], told["seeding_problem"]) == (at, "")
        exchange = replace(asking(peers=(at,)), seed_at=LOOPBACK)
        async with running_worker(
            tmp_path / "b",
            NOWHERE,
            registry_of(made, tmp_path / "b"),
            package=out,
            layers=("1:3",),
            name=name,
            exchange=exchange,
        ) as second:
            assert second.service.status.layers == (1, 3)
            assert second.service.status.model == name
            assert held(out) == made.roots(1, 3)
            assert load_package(out) == made.manifest
            assert await seeds_at(second.service) != at
    assert not children()
    told = read_status(tmp_path / "a")
    assert told is not None and told["seeds_at"] == ""


def holds(worker: RunningWorker, first: int, end: int) -> HolderEntry:
    """How the chain lists a worker that offers layers."""
    return HolderEntry(worker.provider, b"\x0a" * 20, 0, 0, first, end, 0, 1)


async def test_workers_find_those_who_hold_their_layers_without_being_told(
    made: Made, tmp_path: Path
) -> None:
    """The second one is told a model's name and no more; the third one fetches from the second, who has some layers."""
    exchange = Exchange(seed_at=LOOPBACK, limits=LIMITS, holders=HolderPlaces(near=True))
    chain, name = registry_of(made, tmp_path / "a"), made.manifest.name

    def joining(home: str, layers: str) -> AbstractAsyncContextManager[RunningWorker]:
        mine = replace(chain, operator=create_keys(tmp_path / home).operator_address)
        return running_worker(
            *(tmp_path / home, NOWHERE, mine),
            package=tmp_path / home / "package",
            layers=(layers,),
            name=name,
            exchange=exchange,
        )

    async with AsyncExitStack() as others:
        async with running_worker(
            tmp_path / "a", NOWHERE, chain, package=made.folder, exchange=exchange
        ) as first:
            await seeds_at(first.service)
            chain.others.append(holds(first, 0, 4))
            second = await others.enter_async_context(joining("b", "1:3"))
            assert held(tmp_path / "b" / "package") == made.roots(1, 3)
            await seeds_at(second.service)
        # Its entry stays in the book for a while, but nobody answers there any more.
        chain.others.append(holds(second, 1, 3))
        async with joining("c", "2:3") as third:
            assert third.service.status.layers == (2, 3)
            assert held(tmp_path / "c" / "package") == made.roots(2, 3)
    assert not children()


async def test_nobody_who_holds_it_seeds_it(made: Made, tmp_path: Path) -> None:
    exchange = Exchange(limits=LIMITS, holders=HolderPlaces(near=True))
    chain = registry_of(made, tmp_path / "w")
    home = tmp_path / "w"
    with pytest.raises(NobodySeeds, match="no holder of layers 1:3") as failed:
        async with running_worker(
            home,
            NOWHERE,
            chain,
            package=tmp_path / "p",
            layers=("1:3",),
            name=made.manifest.name,
            exchange=exchange,
        ):
            pass
    assert "--peer" in failed.value.hint
    lacking = part_of(made, 0, 2, tmp_path / "part")
    with pytest.raises(PackageNotFound, match=r"piece .* cannot be read") as refused:
        async with running_worker(
            home, NOWHERE, chain, package=lacking, layers=("1:3",), name=made.manifest.name, exchange=exchange
        ):
            pass
    assert "--peer" in refused.value.hint


async def test_what_was_fetched_answers_and_is_fetched_once(made: Made, tmp_path: Path) -> None:
    home, out, chain, name = (
        tmp_path / "w",
        tmp_path / "out",
        registry_of(made, tmp_path / "w"),
        made.manifest.name,
    )
    with serving(WebServer(made.folder)) as server:
        exchange = asking(web_seeds=(server.url,))
        async with running_worker(home, NOWHERE, chain, package=out, name=name, exchange=exchange) as worker:
            client = await Client.connect(worker.chain, worker.provider, 1)
            assert len(await client.stream(0, 302, 3)) == 3
            await client.channel.close()
        sent = server.sent_bytes
        async with running_worker(home, NOWHERE, chain, package=out, name=name, exchange=exchange):
            assert server.sent_bytes == sent, "a chunk that is kept needs nothing"


async def test_pieces_that_are_damaged_or_missing_are_fetched_anew(made: Made, tmp_path: Path) -> None:
    home, out, chain, name = (
        tmp_path / "w",
        tmp_path / "out",
        registry_of(made, tmp_path / "w"),
        made.manifest.name,
    )
    with serving(WebServer(made.folder)) as server:
        exchange = asking(web_seeds=(server.url,))
        async with running_worker(
            home, NOWHERE, chain, package=out, layers=("1:3",), name=name, exchange=exchange
        ):
            pass
        overwritten(out, block(made, 2), 100_000)
        server.asked.clear()
        async with running_worker(
            home, NOWHERE, chain, package=out, layers=("2:4",), exchange=exchange
        ) as worker:
            assert worker.service.status.layers == (2, 4)
        pieces = {path.removeprefix("pieces/") for path in server.paths() if path.startswith("pieces/")}
    lacking = made.roots(2, 4) - made.roots(1, 3) | {block(made, 2).root.hex()}
    assert pieces == lacking, "the header and nothing else was right"
    verify_piece(out, block(made, 2))
    assert piece_path(out, made.piece(PIECE_HEADER)).is_file()


async def test_a_probe_that_is_missing_is_fetched_too(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", SHAPES["llama"])
    folder = tmp_path / "package"
    # Packing asks an engine in a loop of its own.
    manifest = await asyncio.to_thread(lambda: packed(model, folder, with_probe=True))
    probe = probe_of(manifest)
    assert probe is not None
    home, out = tmp_path / "w", tmp_path / "out"
    chain = registry_of(Made(folder, manifest), home)
    with serving(WebServer(folder)) as server:
        exchange = asking(web_seeds=(server.url,))
        for _ in range(2):
            async with running_worker(
                home, NOWHERE, chain, package=out, layers=("1:3",), name=manifest.name, exchange=exchange
            ) as worker:
                assert (await worker.slice.status()).self_tests == 1
            assert f"pieces/{probe.root.hex()}" in server.paths()
            server.asked.clear()
            piece_path(out, probe).unlink()


async def test_who_is_placed_by_the_network_fetches_the_header_and_then_its_slice(
    made: Made, tmp_path: Path
) -> None:
    home, out = tmp_path / "w", tmp_path / "out"
    chain = registry_of(made, home)
    with serving(WebServer(made.folder)) as server:
        async with running_worker(
            *(home, NOWHERE, chain),
            package=out,
            layers=("auto",),
            most_layers=2,
            name=made.manifest.name,
            exchange=asking(web_seeds=(server.url,)),
        ) as worker:
            first, end = worker.service.status.layers
            assert end - first == 2
            assert held(out) == made.roots(first, end), "no layer was fetched to find out how many fit"
            asked = [path for path, _ in server.asked if path.startswith("pieces/")]
            assert asked[0] == f"pieces/{made.piece(PIECE_HEADER).root.hex()}"


async def test_a_wrong_byte_never_reaches_an_engine(made: Made, tmp_path: Path) -> None:
    home, out, wanted = tmp_path / "w", tmp_path / "out", block(made, 2).root.hex()

    def bend(path: str, data: bytes) -> bytes:
        return data[:-9] + b"\7" + data[-8:] if path == f"pieces/{wanted}" else data

    with serving(WebServer(made.folder, bend)) as server, pytest.raises(SourcesLied):
        async with running_worker(
            *(home, NOWHERE, registry_of(made, home)),
            package=out,
            layers=("1:3",),
            name=made.manifest.name,
            exchange=asking(web_seeds=(server.url,)),
        ):
            pass
    assert not (home / "engine.log").exists()
    assert not (home / "model" / "chunk.gguf").exists()
    told = read_status(home)
    assert told is not None and told["state"] == "failed" and told["problem"]
    assert wanted not in held(out)


async def test_without_sources_or_a_name_it_is_said_what_to_do(made: Made, tmp_path: Path) -> None:
    out, chain = tmp_path / "out", registry_of(made, tmp_path / "w0")

    async def start(number: int, name: str | None, exchange: Exchange) -> None:
        async with running_worker(
            tmp_path / f"w{number}",
            NOWHERE,
            chain,
            package=out,
            layers=("1:3",),
            name=name,
            exchange=exchange,
        ):
            pass

    somebody = asking(peers=("127.0.0.1:1",))
    with pytest.raises(PackageNotFound, match="is no package") as refused:
        await start(1, made.manifest.name, Exchange())
    assert "--peer" in refused.value.hint and "dllm model pack" in refused.value.hint
    with pytest.raises(PackageNotFound, match="no model is named") as refused:
        await start(2, None, somebody)
    assert "--name" in refused.value.hint
    with pytest.raises(ModelNotRegistered, match="no model 'other'"):
        await start(3, "other", somebody)
    chain.models["whole"] = ModelRecord(
        b"\1" * 20, replace(made.manifest, name="whole", pieces=made.manifest.pieces[:1]), 1, MODEL_ACTIVE
    )
    with pytest.raises(VerificationFailed, match="not that of a model in pieces"):
        await start(4, "whole", somebody)
    assert not out.exists()


async def test_seeding_that_ends_is_begun_again_at_the_same_place(made: Made) -> None:
    one = PackageSeeding(made.folder, LOOPBACK, LIMITS)
    running = asyncio.create_task(one.run())
    try:
        await until(lambda: one.seeds_at != "")
        at, (child,) = one.seeds_at, children()
        os.kill(int(child), signal.SIGKILL)
        await until(lambda: one.seeds_at == "")
        assert "ended with code -9" in one.problem
        await until(lambda: one.seeds_at != "")
        assert (one.seeds_at, one.problem, running.done()) == (at, "", False)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert one.seeds_at == "" and not children()


async def test_seeding_that_cannot_begin_leaves_a_word(made: Made) -> None:
    with seeding(made.folder) as (_, taken):
        one = PackageSeeding(made.folder, taken, LIMITS)
        running = asyncio.create_task(one.run())
        try:
            await until(lambda: one.problem != "")
            assert "listen" in one.problem and not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def test_flags_that_make_no_sense_are_refused_by_name() -> None:
    def typed(
        peers: tuple[str, ...] = (), seed: str = "", limit: str = "0", parts: str = "package"
    ) -> Exchange:
        package = NOWHERE if parts == "package" else None
        return exchange_of(peers, (), seed, limit, package, ["0:2"] if parts == "layers" else None)

    assert typed() == Exchange(holders=HolderPlaces())
    assert typed(parts="file") == Exchange() == Exchange().on_local_chain()
    assert typed().on_local_chain() == Exchange(holders=HolderPlaces(near=True))
    assert typed(("127.0.0.1:6881",)).sources.peers == (("127.0.0.1", 6881),)
    whole = typed(seed="127.0.0.1:0", limit="2M", parts="layers")
    assert (whole.seed_at, whole.limits.upload_bytes_per_s, whole.has_sources) == (LOOPBACK, 2_000_000, False)
    for words, said in (
        ({"limit": "2M"}, "--upload-limit is for --seed"),
        ({"seed": "127.0.0.1:0", "parts": "file"}, "--seed is for models in pieces"),
        ({"peers": ("127.0.0.1:1",), "parts": "layers"}, "--peer and --web-seed are for --package"),
        ({"seed": "127.0.0.1"}, "is not host:port"),
        ({"seed": "127.0.0.1:0", "limit": "much"}, "is no rate"),
    ):
        with pytest.raises(UsageRefused, match=said):
            typed(**words)  # type: ignore[arg-type]  # words of several types
