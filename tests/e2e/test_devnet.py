"""A devnet as a new user sees it: four validators on CometBFT, two workers, a faucet, and somebody who joins."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.config import Config
from dllm_chat.session.events import AskOptions, Sampling
from dllm_chat.session.service import ChatService
from dllm_chat.wallet.manager import WalletManager
from dllm_chat.wallet.password import FilePassword
from tests.e2e.devnets import Home, RunningDevnet, running_devnet
from tests.e2e.machine import Heard, ask
from tools.conformance.comet_light import CometLight, LightTarget

QUESTION = "What is DLLM?"
GREEDY = AskOptions(sampling=Sampling(temperature=0.0), max_tokens=60)
MIDDLE = 5
"""Pieces of the answer after which something happens to the network."""


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory, cometbft: Path) -> Iterator[RunningDevnet]:
    """Four validators and two workers, shared by the tests of this module in their order."""
    folder = tmp_path_factory.mktemp("devnet") / "home"
    with running_devnet(folder, "--engine", "cometbft", "--validators", "4", "--workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory, devnet: RunningDevnet) -> Home:
    """Somebody with an empty home, who joins with the bundle that `up` printed, and asks the faucet."""
    home = Home.at(tmp_path_factory.mktemp("person") / "home")
    home.dllm("network", "join", devnet.told["bundle"], "--fingerprint", devnet.told["fingerprint"])
    home.make_wallet()
    return home


def test_in_its_own_home_a_question_is_answered_at_once(devnet: RunningDevnet) -> None:
    assert devnet.home.dllm("wallet", "balance")["spendable_udllm"] > 0
    answer = devnet.home.dllm("ask", QUESTION)
    assert answer["reply"].strip()
    assert answer["chain_id"] == devnet.chain_id
    in_the_folder = Home.at(Path(devnet.told["home"]))
    assert in_the_folder.dllm("ask", QUESTION)["chain_id"] == devnet.chain_id


def test_status_tells_height_app_hash_and_every_node(devnet: RunningDevnet) -> None:
    status = devnet.until_status(meet_and_agree, "agreement of all four")
    assert status["height"] > 0
    assert len(bytes.fromhex(status["app_hash"])) == 32
    assert [node["name"] for node in status["nodes"]] == ["node-1", "node-2", "node-3", "node-4"]
    for node in status["nodes"]:
        assert (node["running"], node["validator"], node["peers"]) == (True, True, 3)
        assert node["pid"] > 0
        assert node["url"].startswith("http://127.0.0.1:")
    assert [worker["state"] for worker in status["workers"]] == ["serving", "serving"]
    assert status["faucet"]["running"]


def test_a_newcomer_gets_tokens_proved_by_their_own_light_node(person: Home) -> None:
    got = person.dllm("faucet", "request")
    assert got["amount_udllm"] > 0
    assert person.dllm("wallet", "balance")["spendable_udllm"] == got["balance_udllm"] == got["amount_udllm"]


def test_a_validator_dies_during_the_answer_and_everything_still_verifies(
    devnet: RunningDevnet, person: Home
) -> None:
    before = devnet.status()["height"]
    heard = during_an_answer(person, lambda: devnet.home.dllm("devnet", "kill", "1"))
    assert heard.answer.reply.strip()
    nodes = devnet.status()["nodes"]
    assert [node["running"] for node in nodes] == [False, True, True, True]
    # The one who died is the very node that the bundle names first: all that follows is read from others.
    checked = person.dllm("receipt", "verify", str(heard.answer.receipt))
    assert (checked["anchored"], checked["badge"]) == (True, "NETWORK")
    unlocked = ("--password-file", str(person.password_file))
    again = person.dllm("ask", QUESTION, "--yes", *unlocked)
    assert again["reply"].strip()
    assert again["verified"]["height"] > before
    assert person.dllm("receipt", "verify", again["receipt"])["anchored"]
    closed = person.dllm("session", "close", "--all", *unlocked)["closed"]
    assert closed and all(one["settled"] for one in closed)
    assert person.dllm("wallet", "balance")["in_sessions_udllm"] == 0

    restarted = devnet.home.dllm("devnet", "restart", "1")
    assert restarted["running"]
    status = devnet.until_status(lambda told: agree(told) and told["height"] > before, "all four again")
    assert all(node["validator"] for node in status["nodes"])


def test_cometbft_light_finds_the_same_headers(
    devnet: RunningDevnet, person: Home, cometbft: Path, tmp_path: Path
) -> None:
    shown = person.dllm("light", "status")
    urls = [node["url"] for node in devnet.status()["nodes"]]
    target = LightTarget(devnet.chain_id, urls[0], urls[1:], 1, header_hash(urls[3], 1))
    with CometLight(cometbft, tmp_path, target) as theirs:
        assert theirs.header_hash(shown["height"]) == shown["hash"]


def test_down_leaves_no_process_and_up_goes_on_where_it_was(devnet: RunningDevnet) -> None:
    machine, before = devnet.home.machine, devnet.status()
    assert devnet.home.dllm("devnet", "down")["was_running"]
    assert machine.processes() == {}
    down = devnet.status()
    assert (down["running"], [node["running"] for node in down["nodes"]]) == (False, [False] * 4)
    chain_id = devnet.chain_id
    devnet.up()
    assert devnet.chain_id == chain_id
    devnet.until_status(lambda told: bool(told["height"] > before["height"]), "a new block")
    assert devnet.home.dllm("ask", QUESTION)["chain_id"] == chain_id


def meet_and_agree(status: dict[str, Any]) -> bool:
    """Whether all nodes are connected with each other and show the same newest block."""
    return agree(status) and all(node["peers"] == 3 for node in status["nodes"])


def agree(status: dict[str, Any]) -> bool:
    """Whether all nodes show the same newest block."""
    found = {(node["height"], node["app_hash"]) for node in status["nodes"]}
    return len(found) == 1 and status["height"] > 0


def during_an_answer(person: Home, then: Callable[[], object]) -> Heard:
    """Ask with the person's wallet, and do something when the answer has begun and cannot have ended."""

    async def asked() -> Heard:
        assert person.password_file is not None
        machine = person.machine
        with WalletManager(machine.paths.wallets).unlock(None, FilePassword(person.password_file)) as wallet:
            service = ChatService(machine.paths, Config(), wallet)
            await service.open(lambda _: None)
            try:
                return await ask(service, QUESTION, options=GREEDY, after=MIDDLE, then=lambda _: then())
            finally:
                await service.aclose()

    return asyncio.run(asked())


def header_hash(url: str, height: int) -> str:
    """What a node says that its block is called, upper hex."""
    with urllib.request.urlopen(f"{url}/commit?height={height}", timeout=30) as answer:
        found = json.load(answer)["result"]["signed_header"]["commit"]["block_id"]["hash"]
    return str(found)
