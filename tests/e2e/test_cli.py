"""The scripter's path: ``dllm … --json``, each command a process of its own, the network lingering in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dllm_protocol.units import UDLLM_PER_DLLM
from tests.e2e.machine import END_S, PATIENCE_S, ROOT, Machine, running_machine, until

DLLM = [sys.executable, "-c", "from dllm_chat.cli.main import run; run()"]
QUESTION = "What is DLLM?"


def start(machine: Machine, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DLLM, *words, "--json"],
        env=machine.environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], *, code: int = 0) -> Any:
    """The one JSON object on stdout, and nothing else there."""
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, out + errors
    envelope = json.loads(out)
    assert envelope["ok"] is (code == 0)
    return envelope["data"] if code == 0 else envelope["error"]


def dllm(machine: Machine, *words: str, code: int = 0) -> Any:
    return finish(start(machine, *words), code=code)


def whole(balance: dict[str, Any]) -> int:
    return int(balance["spendable_udllm"]) + int(balance["in_sessions_udllm"])


def test_ask_pay_settle_and_verify_from_the_shell(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=3) as machine:
        before = dllm(machine, "wallet", "balance")
        assert whole(before) == before["spendable_udllm"] == 1_000 * UDLLM_PER_DLLM

        answer = dllm(machine, "ask", QUESTION)
        assert answer["reply"] and answer["badge"] == "LOCAL" and answer["model"] == "guide"
        assert answer["chain_id"].startswith("local-")
        assert answer["tokens"]["prompt"] > 0 < answer["tokens"]["completion"]
        (provider,) = answer["providers"]
        assert provider["layers"][0] == 0 < provider["layers"][1]
        assert answer["verified"]["height"] > 0 and len(answer["verified"]["hash"]) == 64

        after = dllm(machine, "wallet", "balance")
        assert whole(before) - whole(after) == answer["cost_udllm"] + answer["fees_udllm"]
        assert after["address"] == before["address"]

        receipt = Path(answer["receipt"])
        assert dllm(machine, "receipt", "verify", str(receipt))
        raw = receipt.read_bytes()
        for at in (0, len(raw) // 2, len(raw) - 1):
            receipt.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            assert dllm(machine, "receipt", "verify", str(receipt), code=8)["code"]

        dllm(machine, "session", "close", "--all")
        settled = dllm(machine, "wallet", "balance")
        assert settled["in_sessions_udllm"] == 0
        assert whole(after) > whole(settled), "the fee of closing"

        sent = dllm(machine, "wallet", "send", after["address"], "1.5", "--yes")
        assert sent["height"] > settled["height"] and sent["fee_udllm"] > 0
        last = dllm(machine, "wallet", "balance")
        assert whole(settled) - whole(last) == sent["fee_udllm"], "to oneself only the fee is lost"
        assert dllm(machine, "wallet", "send", after["address"], "0.0000001", "--yes", code=2)["code"]
        until(lambda: not machine.processes(), machine.linger_s + END_S, "the end of the unused network")


def test_two_questions_at_once_from_a_cold_start(tmp_path: Path) -> None:
    with running_machine(tmp_path / "home", linger_s=3) as machine:
        both = [start(machine, "ask", QUESTION), start(machine, "ask", "hello")]
        answers = [finish(process) for process in both]
        assert answers[0]["chain_id"] == answers[1]["chain_id"]
        spent = sum(answer["cost_udllm"] + answer["fees_udllm"] for answer in answers)
        assert whole(dllm(machine, "wallet", "balance")) == 1_000 * UDLLM_PER_DLLM - spent
