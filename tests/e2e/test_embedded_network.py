"""The embedded network's life: shared, lingering, gone without a trace, and back after any kind of death."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dllm_chat.paths import write_private
from tests.e2e.machine import (
    END_S,
    ENGINE,
    NODE,
    PATIENCE_S,
    SUPERVISOR,
    WORKER,
    Machine,
    ask,
    kill,
    running_machine,
    soon,
    until,
)

QUESTION = "What is DLLM?"


def lines(terminal: subprocess.Popen[bytes], timeout_s: float = PATIENCE_S) -> list[dict[str, object]]:
    """Everything that a terminal says, to its end."""
    out, _ = terminal.communicate(timeout=timeout_s)
    assert terminal.returncode == 0, out
    return [json.loads(line) for line in out.splitlines()]


def wait_until_open(terminal: subprocess.Popen[bytes]) -> dict[str, object]:
    assert terminal.stdout is not None
    for line in terminal.stdout:
        said: dict[str, object] = json.loads(line)
        if "opened" in said:
            return said
    raise AssertionError(f"the terminal ended with {terminal.wait()} before it opened")


def test_two_terminals_at_once_share_one_network_and_both_pay_once(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=2) as machine:
        # The second one comes while the first one is still starting the network.
        first = machine.start_terminal("ask", QUESTION, "What is a voucher?", "hello")
        time.sleep(0.7)
        second = machine.start_terminal("ask", QUESTION, "Who are you?", "thanks")
        heard = [lines(terminal) for terminal in (first, second)]
        opened = [next(line for line in one if "opened" in line) for one in heard]
        answers = [[line for line in one if "reply" in line] for one in heard]
        assert opened[0]["opened"] == opened[1]["opened"], "one chain"
        assert answers[0][0]["reply"] == answers[1][0]["reply"], "greedy answers agree"
        spent = sum(int(str(line["cost"])) + int(str(line["fees"])) for one in answers for line in one)

        # It goes by itself when it has lingered, and the money is as both terminals say.
        until(lambda: not machine.processes(), machine.linger_s + END_S, "the end of the unused network")
        assert asyncio.run(holdings(machine)) == 1_000_000_000 - spent


async def holdings(machine: Machine) -> int:
    async with machine.terminal() as service:
        balance = await service.balance()
        return balance.spendable_udllm + balance.in_sessions_udllm


def test_a_warm_network_answers_without_starting_anything(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=30) as machine:
        lines(machine.start_terminal("ask", QUESTION))
        before = machine.processes()
        said = lines(machine.start_terminal("ask", QUESTION))
        assert not any("starting" in str(line.get("progress", "")) for line in said)
        assert machine.processes() == before


def test_kill_minus_nine_of_a_terminal_leaves_the_network_to_linger_and_end(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=1) as machine:
        terminal = machine.start_terminal("hold")
        wait_until_open(terminal)
        assert machine.pids(SUPERVISOR) and machine.pids(NODE) and len(machine.pids(WORKER)) == 2
        assert len(machine.pids(ENGINE)) == 2
        time.sleep(2.0)
        assert machine.pids(SUPERVISOR), "it stays as long as somebody holds it"
        terminal.kill()
        terminal.wait()
        until(lambda: not machine.processes(), machine.linger_s + END_S, "the end of the unused network")


def test_kill_minus_nine_of_the_supervisor_takes_everything_along_and_the_next_start_works(
    tmp_path: Path,
) -> None:
    with running_machine(tmp_path / "home") as machine:
        terminal = machine.start_terminal("hold")
        chain = wait_until_open(terminal)["opened"]
        (supervisor,) = machine.pids(SUPERVISOR)
        kill(supervisor)
        # While the old parts are still on their way out, the next one starts already.
        said = lines(machine.start_terminal("ask", QUESTION))
        assert next(line for line in said if "opened" in line)["opened"] == chain
        assert next(line for line in said if "reply" in line)["reply"]
        (new_supervisor,) = machine.pids(SUPERVISOR)
        kill(new_supervisor)
        terminal.communicate()
        until(lambda: not machine.processes(), END_S, "the end of the orphans")


@contextmanager
def stranger() -> Iterator[int]:
    """Somebody else's program on a port: it listens, takes connections, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_after_a_power_cut_stale_files_mislead_nobody(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=60) as machine:
        said = lines(machine.start_terminal("ask", QUESTION))
        chain = next(line for line in said if "opened" in line)["opened"]
        spent = sum(int(str(line["cost"])) + int(str(line["fees"])) for line in said if "reply" in line)
        machine.kill_everything()
        assert (machine.embedded / "supervisor.json").exists()
        with stranger() as port:
            # Ports and process ids that others have got meanwhile.
            door = json.dumps({"port": port, "token": "00" * 32}).encode()
            write_private(machine.embedded / "supervisor.json", door)
            node = machine.embedded / "node" / "rpc.json"
            write_private(node, json.dumps(json.loads(node.read_text()) | {"pid": 1}).encode())
            for worker in machine.embedded.glob("worker-*/status.json"):
                write_private(worker, json.dumps(json.loads(worker.read_text()) | {"pid": 1}).encode())
            again = lines(machine.start_terminal("ask", QUESTION))
        opened = next(line for line in again if "opened" in line)
        assert opened["opened"] == chain
        spent += sum(int(str(line["cost"])) + int(str(line["fees"])) for line in again if "reply" in line)
        assert asyncio.run(holdings(machine)) == 1_000_000_000 - spent


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.long)]
)
def test_a_first_start_that_is_killed_at_any_instant_begins_again(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with running_machine(tmp_path / "home", linger_s=2) as machine:
        for _ in range(3):
            terminal = machine.start_terminal("hold")
            time.sleep(chance.uniform(0.2, 3.5))
            machine.kill_everything()
            terminal.kill()
            terminal.communicate()
        said = lines(machine.start_terminal("ask", QUESTION))
        assert next(line for line in said if "reply" in line)["reply"]


async def test_killed_parts_come_back_while_the_network_is_in_use(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=1) as machine:
        async with machine.terminal() as service:
            for words in ((NODE,), (WORKER, "worker-1 "), (ENGINE,)):
                pid = machine.pids(*words)[0]
                kill(pid)
                heard = await ask(service, QUESTION)
                assert heard.answer.reply
                await soon(
                    lambda: machine.worker_states() == ["serving", "serving"], PATIENCE_S, "two workers again"
                )
                await soon(lambda: len(machine.pids(ENGINE)) == 2, PATIENCE_S, "two engines again")
