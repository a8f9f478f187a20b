"""A provider whose layers the network chooses: real engines over a chain in memory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from dllm_protocol.actions import (
    Heartbeat,
    RegisterProvider,
    SetHolding,
    SetOffer,
    WithdrawHolding,
    WithdrawOffer,
)
from dllm_protocol.encoding import Record
from dllm_protocol.errors import TransactionRefused
from dllm_protocol.holder_book import HolderEntry
from dllm_protocol.records import OfferBookHead
from dllm_protocol.refusals import InsufficientFunds
from local_worker import auto_slice
from local_worker.engine.interface import ServingEngine
from local_worker.keys import create_keys
from local_worker.measuring import measured_speed
from local_worker.packages.package import load_package, piece_path
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model
from tests.local_worker.workers import RunningWorker, running_worker

NOWHERE = Path("no-such-model.gguf")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a llama of four layers."""
    folder = tmp_path_factory.mktemp("package") / "package"
    packed(write_model(tmp_path_factory.mktemp("model") / "four.gguf", SHAPES["llama"]), folder)
    return folder


@pytest.fixture
def package(shared: Path, tmp_path: Path) -> Path:
    """A package that a test may damage."""
    return Path(shutil.copytree(shared, tmp_path / "package"))


def other(number: int, first: int, end: int) -> HolderEntry:
    return HolderEntry(bytes([number]) * 20, bytes([number + 100]) * 20, 5_000, 2, first, end, 0, 1)


def slices_said(chain: ChainDouble) -> list[tuple[int, int]]:
    return [(one.first_layer, one.end_layer) for one in chain.sent if isinstance(one, SetHolding)]


def slices_offered(chain: ChainDouble) -> list[tuple[int, int]]:
    return [(one.first_layer, one.end_layer) for one in chain.sent if isinstance(one, SetOffer)]


async def until(is_so: Callable[[], bool], chain: ChainDouble) -> None:
    """Let epochs pass until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.1)
            chain.now_ms += 200


def auto(
    home: Path, package: Path, chain: ChainDouble | None = None
) -> AbstractAsyncContextManager[RunningWorker]:
    return running_worker(home, NOWHERE, chain, package=package, layers=("auto",), most_layers=2)


def kinds(sent: list[Record]) -> list[str]:
    return [type(one).__name__ for one in sent]


async def test_it_says_where_it_goes_before_it_loads_and_how_fast_it_is_after(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    async def measure(engine: ServingEngine, clock_ns: Callable[[], int]) -> int:
        measured.append(await measured_speed(engine, clock_ns))
        return measured[-1]

    monkeypatch.setattr(auto_slice, "measured_speed", measure)
    async with auto(tmp_path / "w", shared) as worker:
        chain = worker.chain
        assert kinds(chain.sent) == [
            *("RegisterModel", "RegisterProvider", "SetHolding", "SetOffer", "SetHolding")
        ]
        before, after = (one for one in chain.sent if isinstance(one, SetHolding))
        assert slices_said(chain) == [*slices_offered(chain)] * 2
        assert (before.memory_layers, after.memory_layers) == (2, 2)
        assert before.speed_layer_rows_s == 1_000, "nobody says anything, and nothing is measured yet"
        assert [after.speed_layer_rows_s] == measured
        assert worker.service.status.layers == slices_offered(chain)[0]
        registered = next(one for one in chain.sent if isinstance(one, RegisterProvider))
        assert worker.service.status.endpoints == registered.endpoints
    assert isinstance(chain.sent[-2], WithdrawOffer) and isinstance(chain.sent[-1], WithdrawHolding)


async def test_it_goes_where_layers_are_missing_and_forgets_the_old_ones(
    tmp_path: Path, shared: Path
) -> None:
    home = tmp_path / "w"
    chain = ChainDouble(b"", others=[other(1, 0, 2), other(2, 2, 4), other(3, 0, 2)])
    async with auto(home, shared, for_worker(home, chain)) as worker:
        assert slices_offered(worker.chain) == [(2, 4)], "the layers of one owner"
        endpoints = worker.service.status.endpoints
        worker.chain.others[:] = [other(2, 2, 4), other(4, 2, 4)]
        await until(lambda: slices_offered(worker.chain) == [(2, 4), (0, 2)], worker.chain)
        await until(lambda: [one.name for one in (home / "model/slices").iterdir()] == ["0-2"], worker.chain)
        await worker.service._current_status()
        assert (worker.service.status.layers, worker.service.status.endpoints) == ((0, 2), endpoints)
        sent = kinds(worker.chain.sent)
        coming = sent.index("SetHolding", sent.index("SetOffer") + 2)
        # It says again that it comes where that takes its time.
        assert [kind for kind, _ in groupby(sent[coming:])][:3] == ["SetHolding", "WithdrawOffer", "SetOffer"]
        assert slices_said(worker.chain)[-1] == (0, 2)


async def test_the_last_holder_stays_although_other_layers_are_missing(tmp_path: Path, shared: Path) -> None:
    async with auto(tmp_path / "w", shared) as worker:
        (held,) = slices_offered(worker.chain)
        epoch = worker.chain.epoch
        await until(lambda: worker.chain.epoch > epoch + 8, worker.chain)
        assert slices_offered(worker.chain) == [held]
        assert set(slices_said(worker.chain)) == {held}


async def test_what_cannot_be_fetched_is_given_up_and_the_old_slice_serves_on(
    tmp_path: Path, package: Path
) -> None:
    home = tmp_path / "w"
    chain = ChainDouble(b"", others=[other(1, 0, 2), other(2, 2, 4), other(3, 0, 2)])
    block = next(one for one in load_package(package).pieces if (one.kind, one.index) == (4, 1))
    async with auto(home, package, for_worker(home, chain)) as worker:
        piece_path(package, block).unlink()
        worker.chain.others[:] = [other(2, 2, 4), other(4, 2, 4)]
        await until(lambda: slices_said(worker.chain)[-2:] == [(0, 2), (2, 4)], worker.chain)
        assert slices_offered(worker.chain) == [(2, 4)]
        assert worker.service.status.state == "serving"
        tries = len(slices_said(worker.chain))
        epoch = worker.chain.epoch
        await until(lambda: worker.chain.epoch > epoch + 3, worker.chain)
        assert len(slices_said(worker.chain)) == tries, "it does not try again at once"


async def test_a_worker_that_was_cut_off_goes_on_where_the_chain_says_that_it_was(
    tmp_path: Path, shared: Path
) -> None:
    home = tmp_path / "w"
    async with auto(home, shared) as worker:
        chain = worker.chain
        holding = next(iter(chain.holdings.values()))
    chain.holdings[holding.provider] = holding
    chain.others[:] = [other(number, holding.first_layer, holding.end_layer) for number in (1, 2, 3)]
    async with auto(home, shared, chain):
        held = (holding.first_layer, holding.end_layer)
        assert slices_offered(chain) == [held, held], "others count on it there"


async def test_a_chain_that_refuses_is_asked_again(tmp_path: Path, shared: Path) -> None:
    home = tmp_path / "w"
    async with auto(home, shared, for_worker(home, ChainDouble(b""))) as worker:
        (held,) = slices_offered(worker.chain)
        worker.chain.refuse_next[:] = [refusal()] * 3
        lacking = (0, 2) if held == (2, 4) else (2, 4)
        worker.chain.others[:] = [other(number, *held) for number in (1, 2, 3)]
        await until(lambda: slices_offered(worker.chain) == [held, lacking], worker.chain)
        assert not worker.chain.refuse_next


async def test_a_book_that_is_out_of_date_is_frozen_anew_for_a_heartbeat(
    tmp_path: Path, shared: Path
) -> None:
    async with auto(tmp_path / "w", shared) as worker:
        chain = worker.chain

        def beats() -> int:
            return sum(isinstance(one, Heartbeat) for one in chain.sent)

        before, epoch = beats(), chain.epoch
        chain.head = OfferBookHead("tiny", epoch, b"h" * 32, 1, 0, epoch, b"h" * 32, 1)
        await until(lambda: chain.epoch > epoch + 3, chain)
        assert beats() == before, "it is not stale"
        chain.head = replace(chain.head, stale=1)
        await until(lambda: beats() > before, chain)


def refusal() -> TransactionRefused:
    return InsufficientFunds("the operator has nothing left")


def for_worker(home: Path, chain: ChainDouble) -> ChainDouble:
    """The chain, for the operator of a home."""
    chain.operator = create_keys(home).operator_address
    return chain
