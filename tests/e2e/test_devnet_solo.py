"""A devnet on the solo engine: its life and its ends, in order and out of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_chat.paths import write_private
from tests.e2e.devnets import Home, RunningDevnet, interrupt, running_devnet
from tests.e2e.machine import kill, until

QUESTION = "What is DLLM?"
SUPERVISOR = "dllm_chat.devnet.supervisor"
SMALL = ("--engine", "solo", "--workers", "1")


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDevnet]:
    """A small devnet that the first tests use in their order."""
    with running_devnet(tmp_path_factory.mktemp("solo") / "home", *SMALL) as running:
        yield running


def test_killed_parts_stay_down_until_they_are_restarted(devnet: RunningDevnet) -> None:
    home = devnet.home
    for part in ("worker-1", "faucet", "1"):
        assert not home.dllm("devnet", "kill", part)["running"]
    status = devnet.status()
    assert not any(one["running"] for one in (*status["nodes"], *status["workers"], status["faucet"]))
    lost = home.dllm("ask", QUESTION, code=3)
    assert lost["hint"] == "node-1 of the devnet does not run: dllm devnet restart 1"
    again = home.dllm("devnet", "kill", "worker-1", code=2)
    assert "does not run" in again["message"]
    unknown = home.dllm("devnet", "kill", "7", code=2)
    assert ("node-7" in unknown["message"], "node-1" in unknown["hint"]) == (True, True)
    for part in ("1", "faucet", "worker-1"):
        assert home.dllm("devnet", "restart", part)["running"]
    assert home.dllm("ask", QUESTION)["reply"].strip()
    told = home.dllm("devnet", "logs", "1", "-n", "5")["logs"]
    assert {one["part"] for one in told} == {"node-1"}
    assert all(0 < len(one["lines"]) <= 5 for one in told)


def test_a_killed_supervisor_leaves_nothing_behind_and_the_next_start_goes_on(devnet: RunningDevnet) -> None:
    home, chain_id = devnet.home, devnet.chain_id
    refused = home.dllm("devnet", "up", code=2)
    assert "runs already" in refused["message"]
    (supervisor,) = home.machine.pids(SUPERVISOR)
    kill(supervisor)
    until(lambda: not home.machine.processes(), 60, "the end of the orphans")
    assert not devnet.status()["running"]
    devnet.up()
    assert devnet.chain_id == chain_id
    assert home.dllm("ask", QUESTION)["chain_id"] == chain_id

    another = home.dllm("devnet", "up", "--workers", "2", code=2)
    assert "runs already" in another["message"]
    home.dllm("devnet", "down")
    another = home.dllm("devnet", "up", "--workers", "2", code=2)
    assert ("--workers is 2" in another["message"], "--wipe" in another["hint"]) == (True, True)
    assert home.machine.processes() == {}
    home.dllm("devnet", "down", "--wipe")
    assert home.dllm("devnet", "status", code=6)["code"] == "E_NO_DEVNET"


def test_ctrl_c_ends_a_devnet_in_the_foreground_whole(tmp_path: Path) -> None:
    home, log = Home.at(tmp_path / "home"), tmp_path / "up.log"
    process = home.start("devnet", "up", "--foreground", *SMALL, log=log)
    try:
        until(lambda: "Ctrl-C ends it" in log.read_text() or process.poll() is not None, 300, "its start")
        assert process.poll() is None, log.read_text()
        assert home.dllm("ask", QUESTION)["reply"].strip()
        assert interrupt(process) == 0, log.read_text()
        assert home.machine.processes() == {}
    finally:
        process.kill()
        process.wait()
        home.machine.kill_everything()


def test_whoever_interrupts_the_start_leaves_nothing_and_may_start_again(tmp_path: Path) -> None:
    home, log = Home.at(tmp_path / "home"), tmp_path / "up.log"
    process = home.start("devnet", "up", *SMALL, log=log)
    try:
        until(
            lambda: "starting the nodes" in log.read_text() or process.poll() is not None,
            120,
            "the first node",
        )
        assert interrupt(process) == 130, log.read_text()
        until(lambda: not home.machine.processes(), 60, "the end of what had begun")
    finally:
        process.kill()
        process.wait()
        home.machine.kill_everything()
    with running_devnet(tmp_path / "home", *SMALL) as devnet:
        assert devnet.home.dllm("ask", QUESTION)["reply"].strip()


@pytest.fixture
def founded(tmp_path: Path) -> RunningDevnet:
    """A devnet that was killed in its first start, when its plan stood already."""
    devnet = RunningDevnet(Home.at(tmp_path / "home"))
    log = tmp_path / "up.log"
    plan = devnet.home.machine.paths.devnet / "devnet.json"
    process = devnet.home.start("devnet", "up", "--workers", "0", log=log)
    try:
        until(lambda: plan.exists() or process.poll() is not None, 120, "its founding")
        assert plan.exists(), log.read_text()
    finally:
        process.kill()
        process.wait()
        devnet.home.machine.kill_everything()
    return devnet


def test_a_port_that_somebody_took_is_named(founded: RunningDevnet) -> None:
    folder = founded.home.machine.paths.devnet
    port = json.loads((folder / "devnet.json").read_text())["nodes"][0]["rpc_port"]
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        error = founded.home.dllm("devnet", "up", code=3)
    assert ("another program listens" in error["message"], str(port) in error["message"]) == (True, True)
    assert founded.home.machine.processes() == {}


def test_half_made_and_foreign_folders_are_told_apart(tmp_path: Path) -> None:
    half, foreign = tmp_path / "half", tmp_path / "foreign"
    write_private(half / "founding", b"")
    write_private(half / "nodes" / "node-1" / "genesis.json", b"{}")
    write_private(foreign / "letters.txt", b"dear")
    home = Home.at(tmp_path / "home")
    words = ("devnet", "up", "--workers", "0", "--home")
    refused = home.dllm(*words, str(foreign), code=2)
    assert "letters.txt" in refused["message"]
    assert [path.name for path in foreign.iterdir()] == ["letters.txt"]
    try:
        told = home.dllm(*words, str(half))
        assert (told["in_use_here"], told["workers"]) == (False, [])
        assert Home.at(half).dllm("wallet", "balance")["chain_id"] == told["chain_id"]
    finally:
        home.run("devnet", "down", "--home", str(half))
        Home.at(half).machine.kill_everything()


def test_without_the_program_cometbft_says_how_to_get_it(tmp_path: Path) -> None:
    devnet = RunningDevnet(Home.at(tmp_path / "home"))
    nowhere = {"DLLM_COMETBFT": str(tmp_path / "no-such-program")}
    devnet.home.machine._environment.update(nowhere)
    error = devnet.home.dllm("devnet", "up", "--engine", "cometbft", "--validators", "1", code=3)
    assert "make cometbft" in error["message"] + error["hint"]
    assert devnet.home.machine.processes() == {}


def test_numbers_that_cannot_be_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    for words, said in (
        (("--engine", "solo", "--validators", "2"), "solo engine has one validator"),
        (("--engine", "other"), "--engine is 'other'"),
        (("--validators", "0"), "--validators is 0"),
        (("--workers", "99"), "--workers is 99"),
        (("--model", str(tmp_path / "none.gguf")), "no model file"),
    ):
        ran = home.run("devnet", "up", *words, "--json")
        error = json.loads(ran.stdout)["error"]
        assert ran.returncode in (2, 6)
        assert said in error["message"]
    assert home.run("devnet", "down", "--json").returncode in (0, 6)


def test_workers_behind_a_relay_answer_and_come_back_after_it(tmp_path: Path) -> None:
    with running_devnet(tmp_path / "home", *SMALL, "--relay") as running:
        home = running.home
        assert home.dllm("ask", QUESTION)["reply"].strip()
        status = running.status()
        assert status["relay"]["running"]
        provider = home.dllm("provider", "show", status["workers"][0]["provider"])
        (endpoint,) = provider["endpoints"]
        assert endpoint.startswith(status["relay"]["url"].replace("ws://", "relay+ws://") + "/")

        told = Path(status["home"]) / "workers" / "worker-1" / "status.json"

        def state() -> str:
            # The file is written now and then: it may still tell of the time before this endpoint was there.
            return str(json.loads(told.read_text())["endpoint_states"].get(endpoint, ""))

        until(lambda: state() == "open", 120, "the worker's word that it is open")
        assert not home.dllm("devnet", "kill", "relay")["running"]
        until(lambda: state() not in ("", "open"), 120, "the worker's notice")
        assert home.dllm("devnet", "restart", "relay")["running"]
        until(lambda: state() == "open", 120, "the worker's return")
        assert home.dllm("ask", QUESTION)["reply"].strip()
        (told_of,) = home.dllm("devnet", "logs", "relay", "-n", "1")["logs"][-1:]
        assert told_of["part"] == "relay"
