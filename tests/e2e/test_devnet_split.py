"""A devnet that serves a model in slices: who has which, and the routes that the chain makes of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol.actions import OpenSession
from dllm_protocol.address import PROVIDER_SUFFIX, address_of, encode_address
from dllm_protocol.assignment import session_id_of
from dllm_protocol.bundle import TEST_PREFIX, SignedBundle
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Route
from dllm_protocol.session.ledger import WINDOW_KEPT_ROWS
from dllm_protocol.signing import SeedSigner
from local_worker.chain import LightChain
from local_worker.model_files import packaged_model
from tests.e2e.devnets import DEADLINE_S, RunningDevnet, running_devnet

ACCOUNT, SESSION = SeedSigner(b"\x61" * 32), SeedSigner(b"\x62" * 32)
ANY_PRICE = RowPrices(10**9, 10**9, 10**9, 10**9)


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDevnet]:
    """Four workers, each slice of the model that ships twice: a trained one, whose likeliest tokens stand out."""
    folder = tmp_path_factory.mktemp("split")
    model = folder / "sliced.gguf"
    model.write_bytes(packaged_model().read_bytes())
    with running_devnet(folder / "home", "--workers", "4", "--model", str(model), "--split", "3") as running:
        yield running


def holders(status: dict[str, Any]) -> dict[tuple[int, int], dict[str, str]]:
    """Slice → worker → provider."""
    found: dict[tuple[int, int], dict[str, str]] = defaultdict(dict)
    for worker in status["workers"]:
        for one in worker["slices"]:
            first, end = one["layers"]
            assert worker["name"] not in found[first, end], "the same slice twice at one worker"
            found[first, end][worker["name"]] = one["provider"]
    return found


def test_every_slice_is_served_by_two_workers(devnet: RunningDevnet) -> None:
    status = devnet.status()
    assert [(one["name"], one["state"], one["model"]) for one in status["workers"]] == [
        (f"worker-{number}", "serving", "sliced") for number in (1, 2, 3, 4)
    ]
    assert sorted(len(one["slices"]) for one in status["workers"]) == [1, 1, 2, 2]
    slices = sorted(holders(status))
    assert [first for first, _ in slices] == [0, *(end for _, end in slices[:-1])]
    assert all(len(workers) == 2 for workers in holders(status).values())
    text = devnet.home.run("devnet", "status").stdout
    assert ", ".join("{}:{}".format(*one["layers"]) for one in status["workers"][0]["slices"]) in text


def test_a_killed_worker_comes_back_as_the_same_providers(devnet: RunningDevnet) -> None:
    before = devnet.status()
    devnet.home.dllm("devnet", "kill", "worker-2")
    assert [one["slices"] != [] for one in devnet.status()["workers"]] == [True, False, True, True]
    assert devnet.home.dllm("devnet", "restart", "worker-2")["running"]
    assert holders(devnet.status()) == holders(before)


async def test_a_session_gets_a_route_of_three_stages_with_a_standby_each(
    devnet: RunningDevnet, tmp_path: Path
) -> None:
    account = encode_address(TEST_PREFIX, address_of(ACCOUNT.public_key))
    await asyncio.to_thread(devnet.home.dllm, "wallet", "send", account, "5", "--yes")
    bundle = SignedBundle.decode(await asyncio.to_thread(Path(devnet.told["bundle"]).read_bytes))
    chain = LightChain.open(bundle, ACCOUNT, tmp_path / "light.db")
    try:
        await chain.send((OpenSession("sliced", SESSION.public_key, ANY_PRICE, (), 1_000_000),))
        found = await chain.session(session_id_of(address_of(ACCOUNT.public_key), SESSION.public_key))
    finally:
        await chain.close()
    assert found is not None
    check_route(found[1], holders(await asyncio.to_thread(devnet.status)))


def check_route(route: Route, held: dict[tuple[int, int], dict[str, str]]) -> None:
    """The cheaper holder of each slice is its stage, the other one its standby."""

    def shown(provider: bytes) -> str:
        return encode_address(TEST_PREFIX + PROVIDER_SUFFIX, provider)

    stages = [(one.stage.first_layer, one.stage.end_layer) for one in route.stages]
    assert stages == sorted(held)
    for one in route.stages:
        workers = held[one.stage.first_layer, one.stage.end_layer]
        assert one.standby is not None
        assert {shown(one.stage.provider), shown(one.standby.provider)} == set(workers.values())
        assert one.stage.prices.kept_udllm == one.standby.prices.kept_udllm - 1
    first_holders = [held[slice_][f"worker-{number}"] for number, slice_ in enumerate(sorted(held), start=1)]
    assert [shown(one.stage.provider) for one in route.stages] == first_holders


GREEDY = ("ask", "What is a light node, and what does it verify?", "--temperature", "0")
NO_ROWS = {"prompt": 0, "kept": 0, "drafted": 0, "replayed": 0}
BY_HAND = 12
"""Bytes of the answer, at most, after which a worker is killed."""


def test_three_providers_answer_and_are_paid_by_their_layers(devnet: RunningDevnet) -> None:
    told = devnet.home.dllm(*GREEDY, "--no-speculation")
    layers = [tuple(one["layers"]) for one in told["providers"]]
    assert layers == sorted(holders(devnet.status())) and len(layers) == 3
    assert [one["form"] for one in told["links"]] == ["f32", "f32"], "links within a machine are fast"
    shown = devnet.home.dllm("receipt", "verify", told["receipt"])
    assert shown["consistent"], shown
    owed = {one["provider"]: one for one in shown["legs"]}
    assert owed.keys() >= {one["address"] for one in told["providers"]}
    stages = [owed[one["address"]] for one in told["providers"]]
    quoted = devnet.home.dllm("ask", "hi", "--quote")["stages"]
    for leg, stage, (first, end) in zip(stages, quoted, layers, strict=True):
        rows, prices = leg["rows"], stage["prices_udllm_per_1000"]
        assert leg["role"] == "stage" and rows["prompt"] == stages[0]["rows"]["prompt"]
        assert abs(rows["kept"] - stages[0]["rows"]["kept"]) <= WINDOW_KEPT_ROWS, (
            "vouchers run ahead by windows"
        )
        each = prices["kept"] // (end - first)
        assert each == quoted[0]["prices_udllm_per_1000"]["kept"], "a layer has one price"
        paid_rows = prices["prompt"] * rows["prompt"] + prices["kept"] * rows["kept"]
        assert leg["owed_udllm"] == -(-paid_rows // 1000)
    # Standbys are paid for the questions that they answered, and for nothing else.
    for one in owed.values():
        if one not in stages:
            assert one["role"] == "standby" and one["rows"] | {"kept": 0} == NO_ROWS
    paid = {one["owner"]: one["paid_udllm"] for one in shown["owners"]}
    assert sum(paid.values()) == sum(one["owed_udllm"] for one in owed.values())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_worker_that_is_killed_in_mid_answer_changes_no_letter(devnet: RunningDevnet, number: int) -> None:
    undisturbed = devnet.home.dllm(*GREEDY)["reply"]
    (pid,) = [one["pid"] for one in devnet.status()["workers"] if one["name"] == f"worker-{number}"]
    asking = devnet.home.open(*GREEDY)
    assert asking.stdout is not None and asking.stderr is not None
    # Not through a buffer: what it read beyond them, `communicate` would not give out.
    beginning = os.read(asking.stdout.fileno(), BY_HAND)
    os.kill(pid, signal.SIGKILL)
    rest, words = asking.communicate(timeout=DEADLINE_S)
    assert asking.returncode == 0, words
    assert (beginning + rest).decode() == undisturbed + "\n" * (not undisturbed.endswith("\n"))
    assert b" goes on" in words, "the standby took over, and the person was told"
    shown = devnet.home.dllm("receipt", "verify", "last")
    assert shown["consistent"], shown
    assert any(one["rows"]["replayed"] for one in shown["legs"]), "who took over is paid for catching up"
    paid = sum(one["paid_udllm"] for one in shown["owners"])
    assert paid == sum(one["owed_udllm"] for one in shown["legs"])
    assert devnet.home.dllm("devnet", "restart", f"worker-{number}")["running"]
