"""A network made, run and asked by commands alone, as its operators would."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol.address import encode_address
from full_node.home import NodeHome
from full_node.settings import COMETBFT
from tests.full_node.cometbft.network import Node, free_ports, until
from tests.full_node.processes import Sender, dllm_node


def done(*words: str | Path) -> dict[str, Any]:
    """What a command answers as JSON."""
    ran = dllm_node(*words, "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    data: dict[str, Any] = json.loads(ran.stdout)["data"]
    return data


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, cometbft: Path) -> list[Node]:
    """Two validators of one chain: keys first, then a genesis that names both, then the other's folder.

    Every test leaves them stopped.
    """
    folder = tmp_path_factory.mktemp("pair")
    ports = free_ports(4)
    nodes = [Node(f"node-{n}", folder / f"node-{n}", ports[2 * n], ports[2 * n + 1]) for n in range(2)]
    keys = [done("key", "--home", node.home) for node in nodes]
    addresses = [f"{key['node_id']}@127.0.0.1:{node.p2p_port}" for key, node in zip(keys, nodes, strict=True)]
    owners = [encode_address("local", Sender.numbered(n).address) for n in (1, 2)]
    first_set = [
        word
        for key, owner in zip(keys, owners, strict=True)
        for word in ("--validator", f"{key['public_key']}:{owner}:2000")
    ]
    first = done("init", "--home", nodes[0].home, "--engine", COMETBFT, *first_set, "--peer", addresses[1])
    second = done(
        "init",
        *("--home", nodes[1].home, "--engine", COMETBFT, "--peer", addresses[0]),
        *("--genesis", NodeHome(nodes[0].home).genesis),
    )
    assert first["chain_id"] == second["chain_id"]
    assert [first["node_id"], second["node_id"]] == [key["node_id"] for key in keys]
    assert first["engine"] == second["engine"] == COMETBFT
    return nodes


def test_two_validators_from_their_keys_to_a_status(pair: list[Node]) -> None:
    try:
        for node in pair:
            node.begin()
        for node in pair:
            node.ready()
        until("a block", lambda: all(node.height >= 1 for node in pair))

        def settled() -> list[dict[str, Any]]:
            found = [done("status", "--home", node.home) for node in pair]
            return found if all(one["peers"] == 1 and not one["catching_up"] for one in found) else []

        first, second = until("both to be settled", settled)
        assert first["validator"] is second["validator"] is True
        assert first["app_hash"] == second["app_hash"] != ""
        assert first["peer_address"] == pair[0].peer_address
        assert first["address"] == f"127.0.0.1:{pair[0].rpc_port}"
        words = dllm_node("status", "--home", pair[0].home).stdout
        assert "up to date, 1 peers, validator" in words

        assert [node.stop() for node in pair] == [0, 0]
        assert not NodeHome(pair[0].home).rpc.exists()
        assert not (NodeHome(pair[0].home).cometbft / "abci.sock").exists()
    finally:
        for node in pair:
            node.end()


def test_a_node_whose_engine_died_ends_and_says_why(pair: list[Node]) -> None:
    node = pair[0]
    try:
        node.restart()
        (engine,) = node.engine_pids()
        node.kill_engine()
        assert node.process is not None
        assert node.process.wait(60) == 3
        assert node.process.stderr is not None
        said = node.process.stderr.read()
        assert f"cometbft ended with status -{signal.SIGKILL.value}" in said
        assert "cometbft.log" in said
        assert "Traceback" not in said
        node.close()
        assert not Path(f"/proc/{engine}").exists()
        # Nothing is left behind that would keep it from starting again, and the engine goes with a killed node.
        node.restart()
        (engine,) = node.engine_pids()
        node.kill()
        until("the engine's end", lambda: not Path(f"/proc/{engine}").exists())
    finally:
        node.end()


def test_a_port_that_is_taken_is_told(pair: list[Node]) -> None:
    one, other = pair[0], replace(pair[1], rpc_port=pair[0].rpc_port)
    try:
        one.restart()
        other.begin()
        with pytest.raises(AssertionError, match=r"cannot listen on .*in use"):
            other.ready()
    finally:
        for node in (one, other):
            node.end()


def test_what_cannot_be_run_is_refused_by_name(pair: list[Node], tmp_path: Path) -> None:
    home = pair[0].home
    token = tmp_path / "token"
    token.write_text("word\n")
    for words, said in (
        (("start", "--home", home, "--token-file", token), "CometBFT's RPC asks for no token"),
        (
            ("start", "--home", home, "--cometbft", tmp_path / "gone"),
            "is not a program that this user may run",
        ),
        (("start", "--home", home, "--engine", "other"), "--engine is 'other'"),
        (("start", "--home", home, "--peer", "nobody"), "is not a peer's address"),
        (("join", "--home", tmp_path / "new"), "which network?"),
        (("join", "--home", tmp_path / "new", "--genesis", NodeHome(home).genesis), "no peer is known"),
        (("init", "--home", tmp_path / "new", "--validator", "x"), "KEY:OWNER:STAKE"),
    ):
        ran = dllm_node(*words)
        assert ran.returncode == 2, (words, ran)
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
    alone = dllm_node("start", "--home", home, "--engine", "solo")
    assert (alone.returncode, "seats for 100 validators" in alone.stderr) == (8, True)
