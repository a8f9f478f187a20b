"""The machine's clock jumps, the machine sleeps for weeks, and the package is upgraded."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.random_model import make_random_llama
from dllm_chat.embedded.chain import PLAY_MONEY_UDLLM
from tests.e2e.machine import ROOT, Machine, running_machine
from tests.e2e.test_embedded_network import lines

QUESTION = "What is DLLM?"
DAY_S = 24 * 3600
OTHER_CLOCK = """
import os, time
_shift_ns = int(os.environ["TEST_CLOCK_SHIFT_S"]) * 10**9
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift_ns / 1e9
time.time_ns = lambda: _time_ns() + _shift_ns
"""
"""Python's own hook at start: every process of ours then lives at another time, as on a machine with a wrong clock."""


def at_another_time(machine: Machine, shift_s: int) -> subprocess.Popen[bytes]:
    """A terminal, and the network that it starts, on a machine whose clock is off by so much."""
    hook = machine.home.parent / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(OTHER_CLOCK)
    other = Machine(
        machine.home,
        linger_s=machine.linger_s,
        environment={"TEST_CLOCK_SHIFT_S": str(shift_s)},
        python_path=(str(hook),),
    )
    return other.start_terminal("ask", QUESTION)


def opened(said: list[dict[str, object]]) -> dict[str, object]:
    return next(line for line in said if "opened" in line)


def replied(said: list[dict[str, object]]) -> dict[str, object]:
    return next(line for line in said if "reply" in line)


@pytest.mark.parametrize(
    "shift_s", [-20 * DAY_S, 600], ids=["slept-for-20-days", "clock-set-back-10-minutes"]
)
def test_the_chain_goes_on_after_the_clock_jumped(tmp_path: Path, shift_s: int) -> None:
    with running_machine(tmp_path / "home", linger_s=60) as machine:
        before = lines(at_another_time(machine, shift_s))
        machine.kill_everything()
        after = lines(machine.start_terminal("ask", QUESTION))
        assert opened(after)["opened"] == opened(before)["opened"], "the same chain"
        assert int(str(opened(after)["spendable"])) < PLAY_MONEY_UDLLM, "with what was spent on it"
        assert replied(after)["reply"] == replied(before)["reply"]


def test_a_chain_from_the_far_future_is_set_aside(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=60) as machine:
        before = lines(at_another_time(machine, 2 * DAY_S))
        machine.kill_everything()
        after = lines(machine.start_terminal("ask", QUESTION))
        assert opened(after)["opened"] != opened(before)["opened"]
        assert any("clock" in str(line.get("progress", "")) for line in after), "and the person hears why"
        assert replied(after)["reply"]
        assert (machine.embedded / "old" / "genesis").exists(), "the old one is kept for looking at"


def test_an_upgrade_that_ships_a_new_model_keeps_chain_and_money(tmp_path: Path) -> None:
    """A second installation of the package, with another model in it, on the same home."""
    with running_machine(tmp_path / "home", linger_s=60) as machine:
        before = lines(machine.start_terminal("ask", QUESTION))
        machine.shut_down()
        newer = tmp_path / "newer"
        for package in ("dllm_protocol", "full_node", "light_node", "local_worker", "dllm_chat"):
            shutil.copytree(ROOT / package, newer / package, ignore=shutil.ignore_patterns("__pycache__"))
        make_random_llama(
            newer / "local_worker" / "models" / "guide.gguf",
            layers=2,
            n_embd=64,
            n_ff=128,
            heads=2,
            kv_heads=2,
            vocab_size=512,
            seed=5,
        )
        upgraded = Machine(machine.home, linger_s=60, python_path=(str(newer),))
        after = lines(upgraded.start_terminal("ask", QUESTION))
        assert opened(after)["opened"] == opened(before)["opened"], "the same chain"
        assert int(str(opened(after)["spendable"])) < PLAY_MONEY_UDLLM
        assert replied(after)["reply"] != replied(before)["reply"], "another model speaks"
        states = [json.loads(path.read_text()) for path in machine.embedded.glob("worker-*/status.json")]
        assert {state["model"] for state in states} != {"guide"}
        machine.shut_down()
        # And back again: the first model is known still.
        again = lines(machine.start_terminal("ask", QUESTION))
        assert opened(again)["opened"] == opened(before)["opened"]
        assert replied(again)["reply"] == replied(before)["reply"]
