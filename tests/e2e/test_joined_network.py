"""A network of others: an operator's node, two workers, a bundle, and a person with a wallet of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.contributing import packaged_model
from dllm_protocol.address import decode_address, encode_address
from dllm_protocol.bundle import TEST_PREFIX as PREFIX
from tests.e2e.machine import PATIENCE_S, until

PASSWORD = "correct horse battery staple 9"
DEADLINE_S = PATIENCE_S


@dataclass(frozen=True)
class Person:
    """Somebody's home with the command line."""

    home: Path
    password_file: Path

    def dllm(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run a command with --json; return data, or the error where ``code`` is not 0."""
        ran = subprocess.run(
            [str(Path(sys.executable).parent / "dllm"), *words, "--json"],
            env={**os.environ, "DLLM_HOME": str(self.home)},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
        )
        assert ran.returncode == code, (ran.stdout, ran.stderr)
        envelope = json.loads(ran.stdout)
        assert envelope["ok"] is (code == 0)
        return dict(envelope["data" if code == 0 else "error"])


@dataclass(frozen=True)
class Network:
    """What the operator published, and one who joined."""

    bundle: Path
    fingerprint: str
    person: Person
    address: str


def run_json(module: str, *words: str) -> dict[str, Any]:
    out = subprocess.run([sys.executable, "-m", module, *words, "--json"], capture_output=True, check=True)
    return dict(json.loads(out.stdout)["data"])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    root = tmp_path_factory.mktemp("network")
    person = Person(root / "person", root / "password")
    person.password_file.write_text(PASSWORD + "\n")
    made = person.dllm(
        "wallet",
        "create",
        "main",
        "--password-file",
        str(person.password_file),
        "--seed-out",
        str(root / "seed"),
    )
    address = encode_address(PREFIX, decode_address(str(made["accounts"][0]["address"]), "dllm"))
    homes = [root / "worker-1", root / "worker-2"]
    funded = [f"{address}=500"]
    for home in homes:
        operator = bytes.fromhex(run_json("local_worker", "init", "--home", str(home))["operator"])
        funded.append(f"{encode_address(PREFIX, operator)}=2000")
    accounts = [word for one in funded for word in ("--account", one)]
    node = root / "node"
    run_json(
        "full_node", "init", "--home", str(node), "--chain-prefix", PREFIX, "--name", "testnet", *accounts
    )
    with ExitStack() as stack:
        _keep(stack, root / "node.out", "full_node", "start", "--home", str(node))
        until((node / "rpc.json").exists, DEADLINE_S, "the node's door")
        published = _published(node)
        for home in homes:
            words = (
                "start",
                "--home",
                str(home),
                "--model",
                str(packaged_model()),
                "--bundle",
                str(published["file"]),
            )
            _keep(
                stack,
                root / f"{home.name}.out",
                "local_worker",
                *words,
                "--register-model",
                "--name",
                "guide",
            )
        for home in homes:
            until(partial(_serves, home), DEADLINE_S, "serving")
        person.dllm("network", "join", str(published["file"]), "--fingerprint", str(published["fingerprint"]))
        yield Network(Path(published["file"]), str(published["fingerprint"]), person, address)


def _keep(stack: ExitStack, log: Path, module: str, *words: str) -> None:
    """A process with a lifeline, ended with the stack."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words, "--lifeline"],
        stdin=subprocess.PIPE,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0, log.read_text()

    stack.callback(end)


def _published(node: Path) -> dict[str, Any]:
    """The bundle, as soon as the node has its first block."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        ran = subprocess.run(
            [sys.executable, "-m", "full_node", "bundle", "--home", str(node), "--json"],
            capture_output=True,
            check=False,
        )
        if ran.returncode == 0:
            return dict(json.loads(ran.stdout)["data"])
        assert time.monotonic() < deadline, ran.stdout


def _serves(home: Path) -> bool:
    try:
        return bool(json.loads((home / "status.json").read_text())["state"] == "serving")
    except (OSError, ValueError, KeyError):
        return False


def test_a_bundle_of_another_publisher_is_not_joined(network: Network) -> None:
    error = network.person.dllm(
        "network", "join", str(network.bundle), "--fingerprint", "0000 1111 2222 3333", code=8
    )
    assert "0000 1111 2222 3333" in error["message"]


def test_a_capped_key_asks_and_settles_while_the_wallet_stays_locked_and_the_bill_adds_up(
    network: Network,
) -> None:
    person, password = network.person, ("--password-file", str(network.person.password_file))
    joined = person.dllm("network", "join", str(network.bundle), "--fingerprint", network.fingerprint)
    before = person.dllm("wallet", "balance")
    assert before["chain_id"] == joined["chain_id"]
    assert (before["spendable_udllm"], before["play_money"]) == (500_000_000, False)
    granted = person.dllm("wallet", "chat-key", "--cap", "5", *password)
    answer = person.dllm("ask", "What is a light node?", "--yes")
    assert answer["badge"] == "NETWORK"
    assert answer["reply"].strip()
    after = person.dllm("wallet", "balance")
    fell = sum(before[k] - after[k] for k in ("spendable_udllm", "in_sessions_udllm"))
    assert fell == granted["fee_udllm"] + answer["cost_udllm"] + answer["fees_udllm"]
    checked = person.dllm("receipt", "verify", answer["receipt"])
    assert (checked["anchored"], checked["badge"]) == (True, "NETWORK")
    # Everybody agreed on the last voucher: closing settles at once, a day's grace or not.
    before = after
    (closed,) = person.dllm("session", "close", "--all")["closed"]
    assert closed["settled"], "both sides agreed on the last voucher"
    after = person.dllm("wallet", "balance")
    assert after["in_sessions_udllm"] == 0
    gained = after["spendable_udllm"] - before["spendable_udllm"]
    assert (
        gained
        == before["in_sessions_udllm"] - closed["fee_udllm"]
        == closed["refund_udllm"] - closed["fee_udllm"]
    )


def test_the_chat_key_sends_nobody_money(network: Network) -> None:
    error = network.person.dllm("wallet", "send", network.address, "1", "--yes", code=7)
    assert "password" in (error["message"] + error["hint"]).lower()
