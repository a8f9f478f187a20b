"""Workers of slices: what they offer, what they keep, and which bytes they refuse before an engine sees them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.actions import RegisterModel, RegisterProvider, SetOffer, WithdrawOffer
from dllm_protocol.model_manifest import Manifest, manifest_hash
from dllm_protocol.model_package.errors import LayersRefused, PieceRefused
from dllm_protocol.pricing import part_of
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord
from dllm_protocol.vocabulary import Vocabulary, vocabulary_hash
from full_node.state_machine.providers.rules import check_offer
from local_worker.errors import ModelMismatch
from local_worker.keys import load_keys
from local_worker.model_files import check_package
from local_worker.packages.errors import PackageNotFound
from local_worker.packages.package import load_package, piece_path
from local_worker.registration import ask_for
from local_worker.restored import MARK, mark_slices
from local_worker.slice_service import slice_home
from local_worker.status import read_status
from tests.local_worker.clients import Client
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model
from tests.local_worker.workers import running_worker

NOWHERE = Path("no-such-model.gguf")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of four layers."""
    return write_model(tmp_path_factory.mktemp("model") / "four.gguf", SHAPES["llama"])


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its package."""
    folder = tmp_path_factory.mktemp("package") / "package"
    packed(model, folder)
    return folder


@pytest.fixture
def package(shared: Path, tmp_path: Path) -> Path:
    """A package that a test may damage."""
    return Path(shutil.copytree(shared, tmp_path / "package"))


def registry_of(manifest: Manifest) -> dict[str, ModelRecord]:
    return {manifest.name: ModelRecord(b"\1" * 20, manifest, 1, MODEL_ACTIVE)}


async def test_each_slice_is_offered_by_a_provider_of_its_own(tmp_path: Path, shared: Path) -> None:
    home, manifest = tmp_path / "w", load_package(shared)
    async with running_worker(home, NOWHERE, package=shared, layers=("0:1", "1:3", "3:4")) as worker:
        sent, chain = list(worker.chain.sent), worker.chain
        assert [type(action) for action in sent].count(RegisterModel) == 1
        assert chain.models["tiny"].manifest == manifest
        offers = [action for action in sent if isinstance(action, SetOffer)]
        assert [(one.first_layer, one.end_layer) for one in offers] == [(0, 1), (1, 3), (3, 4)]
        for offer in offers:
            check_offer(offer, chain.models["tiny"])
            layers = offer.end_layer - offer.first_layer
            assert offer.prices == ask_for(part_of(manifest.reserve_prices, layers, 4))
        operators = [load_keys(slice_home(home, number)).operator_address for number in (1, 2, 3)]
        registered = [action for action in sent if isinstance(action, RegisterProvider)]
        assert [one.operator for one in registered] == operators
        assert len({one.service_key for one in registered} | {one.sealing_key for one in registered}) == 6
        assert len({one.endpoints for one in registered}) == 3
        said = [one._served.vocabulary_bytes for one in worker.service.slices if one._served]
        assert said[1] == b"" and said[0] == said[2]
        assert vocabulary_hash(Vocabulary.decode(said[0])) == manifest.vocabulary_hash
        assert [one.engine.info.end_layer for one in worker.service.slices] == [1, 3, 4]
        worker.service.status_file.write(worker.service.status)
        told = read_status(home)
    assert told is not None
    assert [one["layers"] for one in told["slices"]] == [[0, 1], [1, 3], [3, 4]]
    assert (told["layers"], told["provider"]) == ([0, 1], told["slices"][0]["provider"])
    assert len({one["provider"] for one in told["slices"]}) == 3
    withdrawn = [action.provider for action in worker.chain.sent if isinstance(action, WithdrawOffer)]
    assert sorted(withdrawn) == sorted(offer.provider for offer in offers)
    assert (home / "worker.db").exists() and (home / "slices" / "3" / "worker.db").exists()


async def test_a_package_can_be_served_whole_and_answers(tmp_path: Path, shared: Path) -> None:
    async with running_worker(tmp_path / "w", NOWHERE, package=shared) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        assert len(await client.ask(0, [1, 300, 301])) == 1
        assert len(await client.stream(3, 302, 5)) == 5
        await client.channel.close()
        assert worker.service.status.layers == (0, 4)


async def test_a_file_is_cut_once_and_its_chunk_is_kept(tmp_path: Path, model: Path) -> None:
    home, own = tmp_path / "w", Path(shutil.copy2(model, tmp_path / "Own Model.gguf"))

    def made() -> list[int]:
        return [(home / "model" / name).stat().st_mtime_ns for name in ("package/manifest", "chunk.gguf")]

    async with running_worker(home, own, layers=("2:4",)) as worker:
        assert list(worker.chain.models) == ["own-model"]
        assert worker.service.status.layers == (2, 4)
        chain, first = worker.chain, made()
    async with running_worker(home, own, chain, layers=("2:",)):
        assert made() == first
    async with running_worker(home, own, chain, layers=("1:4",)):
        package, chunk = made()
        assert (package == first[0], chunk == first[1]) == (True, False)
    os.utime(own)
    async with running_worker(home, own, chain, layers=("1:4",)):
        assert made()[0] != package
    assert list(chain.models) == ["own-model"]


async def test_a_chunk_that_was_damaged_is_assembled_again(tmp_path: Path, shared: Path) -> None:
    home, chunk = tmp_path / "w", tmp_path / "w" / "model" / "chunk.gguf"
    async with running_worker(home, NOWHERE, package=shared, layers=("1:3",)) as worker:
        chain, bytes_of_it = worker.chain, chunk.read_bytes()
    chunk.write_bytes(bytes_of_it[:-64] + b"\1" * 32 + bytes_of_it[-32:])
    assert chunk.read_bytes() != bytes_of_it
    async with running_worker(home, NOWHERE, chain, package=shared, layers=("1:3",)):
        assert chunk.read_bytes() == bytes_of_it


async def test_no_engine_sees_a_piece_that_is_not_the_manifests(tmp_path: Path, package: Path) -> None:
    block = next(piece for piece in load_package(package).pieces if (piece.kind, piece.index) == (4, 2))
    path = piece_path(package, block)
    path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(PieceRefused, match="block 2 has root"):
        async with running_worker(tmp_path / "w", NOWHERE, package=package, layers=("1:3",)):
            pass
    assert not (tmp_path / "w" / "engine.log").exists()
    assert [one.name for one in (tmp_path / "w" / "model").iterdir()] == []
    told = read_status(tmp_path / "w")
    assert told is not None and told["state"] == "failed" and "block 2" in told["problem"]
    path.unlink()
    async with running_worker(tmp_path / "v", NOWHERE, package=package, layers=("0:2",)) as worker:
        assert worker.service.status.state == "serving", "pieces that it does not need may be missing"
    with pytest.raises(PackageNotFound, match="block 2"):
        async with running_worker(tmp_path / "u", NOWHERE, package=package, layers=("2:4",)):
            pass


async def test_the_registry_decides_what_a_name_means(tmp_path: Path, shared: Path) -> None:
    own = load_package(shared)
    other = replace(own, pieces=(*own.pieces[:-1], replace(own.pieces[-1], root=b"\7" * 32)))
    chain = ChainDouble(b"\1" * 20, models=registry_of(other))
    async with running_worker(tmp_path / "w", NOWHERE, chain, package=shared, layers=("0:2",)) as worker:
        named = f"tiny-{manifest_hash(own).hex()[:8]}"
        assert worker.service.status.model == named, "another model has the package's name"
        assert chain.models[named].manifest.pieces == own.pieces
    dearer = replace(own, name="another", licence="MIT", reserve_prices=part_of(own.reserve_prices, 1, 2))
    chain = ChainDouble(b"\1" * 20, models=registry_of(dearer))
    async with running_worker(tmp_path / "v", NOWHERE, chain, package=shared, layers=("0:2",)) as worker:
        assert worker.service.status.model == "another", "the same pieces, whatever the package calls itself"
        (offer,) = chain.offers.values()
        assert offer.prices == ask_for(part_of(dearer.reserve_prices, 2, 4))


def test_a_package_under_a_name_that_promises_another_is_refused(shared: Path) -> None:
    own = load_package(shared)
    check_package(own, own)
    check_package(replace(own, licence="MIT", name="other"), own)
    for promised, said in (
        (replace(own, architecture="qwen2"), "architecture is llama, tiny promises qwen2"),
        (replace(own, layers=5), "layers is 4, tiny promises 5"),
        (replace(own, vocabulary_hash=b"\1" * 32), "vocabulary is"),
        (replace(own, pieces=own.pieces[:-1]), "number of pieces is 7, tiny promises 6"),
        (replace(own, pieces=(*own.pieces[:3], *own.pieces[4:], own.pieces[3])), "block 1 is"),
        (
            replace(own, pieces=(*own.pieces[:-1], replace(own.pieces[-1], size_bytes=5))),
            "kinds or sizes differ",
        ),
    ):
        with pytest.raises(ModelMismatch, match=said):
            check_package(promised, own)


async def test_layers_that_the_model_has_not_are_refused(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(LayersRefused, match="layers 2:9 of a model of 4"):
        async with running_worker(tmp_path / "w", NOWHERE, package=shared, layers=("0:2", "2:9")):
            pass
    assert not (tmp_path / "w" / "slices" / "2" / "engine.log").exists()


def test_the_mark_of_a_restored_home_holds_for_all_slices(tmp_path: Path) -> None:
    for number in (2, 3):
        slice_home(tmp_path, number).mkdir(parents=True)
    mark_slices(tmp_path)
    assert not (slice_home(tmp_path, 2) / MARK).exists()
    (tmp_path / MARK).write_bytes(b"")
    mark_slices(tmp_path)
    assert all((slice_home(tmp_path, number) / MARK).exists() for number in (1, 2, 3))
