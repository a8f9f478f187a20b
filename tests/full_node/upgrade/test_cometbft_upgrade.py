"""The documented way to other rules, walked by four validators on CometBFT."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

import pytest

from dllm_protocol import state_keys
from dllm_protocol.params import Params
from dllm_protocol.records import Account, AppVersion
from tests.full_node.cometbft.network import DEADLINE_S, Network, Node, until
from tests.full_node.processes import NODE, Sender
from tests.full_node.upgrade.new_program import ADDED_WINDOW_MS

PROGRAM = Path(__file__).with_name("new_program.py")
HALT = 8
RECIPIENT = Sender.numbered(77).address


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    with Network.start(tmp_path, validators=4, options=("--halt-height", str(HALT))) as started:
        yield started


def _ends_with(node: Node) -> tuple[int, str]:
    """Exit status and last words of a node that ends by itself."""
    assert node.process is not None
    assert node.process.stderr is not None
    node.process.wait(DEADLINE_S)
    said = node.process.stderr.read()
    return node.close(), said


def _refused(node: Node, program: list[str], *options: str) -> tuple[int, str]:
    node.program, node.options = tuple(program), options
    node.begin()
    return _ends_with(node)


def _value(node: Node, key: bytes) -> bytes:
    return base64.b64decode(node.rpc("abci_query", path="/key", data=key.hex())["response"]["value"])


def test_four_validators_go_on_under_other_rules_with_one_app_hash(network: Network) -> None:
    new = [sys.executable, str(PROGRAM), network.chain_id, str(HALT)]
    *majority, late = network.nodes
    payer = network.sender(1)

    # One brings the new program too early and is told so; then it sleeps until the others are through.
    assert late.stop() == 0
    code, said = _refused(late, new)
    assert (code, f"takes over after height {HALT}" in said) == (2, True), said

    # The old program runs to the height and not past it.
    until("the height to halt after", lambda: _drive(majority, network, payer))
    endings = [_ends_with(node) for node in majority]
    assert [code for code, _ in endings] == [10] * 3, endings
    mark = _require_marks_agree(majority)

    # A supervisor that starts the old program again gets no block out of it.
    code, said = _refused(majority[0], NODE)
    assert (code, f"halted after height {HALT} for another program" in said) == (2, True), said
    code, said = _refused(majority[0], NODE, "--halt-height", str(HALT))
    assert (code, mark in said) == (10, True), said

    _run(majority, new)
    payer = network.sender(2)
    height = int(network.transfer(payer, RECIPIENT, 3)["height"])
    assert height > HALT
    network.require_agreement(height, majority)

    # The late one gets the old blocks from the new nodes, halts where they halted, and then follows.
    late.program, late.options = tuple(NODE), ("--halt-height", str(HALT))
    late.begin()
    code, said = _ends_with(late)
    assert (code, mark in said) == (10, True), said
    assert _require_marks_agree([late]) == mark
    _run([late], new)
    network.require_agreement(int(network.transfer(payer, RECIPIENT, 4)["height"]))
    for node in network.nodes:
        _require_upgraded(node, network, mark)

    # And the old program has nothing to do here any more.
    assert late.stop() == 0
    code, said = _refused(late, NODE)
    assert (code, "app version 1, this program runs 0" in said) == (2, True), said


def _run(nodes: Sequence[Node], program: list[str]) -> None:
    for node in nodes:
        node.program, node.options = tuple(program), ()
        node.begin()
    for node in nodes:
        node.ready()


def _require_marks_agree(nodes: Sequence[Node]) -> str:
    """That all halted at the height with one app hash; returns it."""
    marks = [json.loads((node.home / "halted.json").read_text()) for node in nodes]
    assert {(mark["height"], mark["app_version"]) for mark in marks} == {(HALT, 0)}
    (app_hash,) = {mark["app_hash"] for mark in marks}
    return str(app_hash)


def _require_upgraded(node: Node, network: Network, app_hash: str) -> None:
    """That the next block begins over the state that the old program left, and goes on under the new rules."""
    headers = [node.rpc("commit", height=str(HALT + ahead))["signed_header"]["header"] for ahead in (1, 2)]
    assert headers[0]["app_hash"] == app_hash
    assert [header["version"].get("app", "0") for header in headers] == ["0", "1"]
    epoch_ms = Params.decode(_value(node, state_keys.PARAMS)).epoch_ms
    assert epoch_ms == network.genesis.params.epoch_ms + ADDED_WINDOW_MS
    assert AppVersion.decode(_value(node, state_keys.APP_VERSION)) == AppVersion(1)
    assert node.rpc("abci_info")["response"]["app_version"] == "1"
    assert not (node.home / "halted.json").exists()


def _drive(nodes: Sequence[Node], network: Network, payer: Sender) -> bool:
    """Sends until all nodes have ended; each block wants a reason."""
    running = [node for node in nodes if node.process is not None and node.process.poll() is None]
    if not running:
        return True
    raw = payer.transfer(RECIPIENT, 1)
    try:
        network.send(raw, running[0])
    except HTTPException:
        pass  # it ended while it answered
    except AssertionError:
        # Refused: what was sent before is not in a block yet, or never will be.
        payer.sequence = _sequence(running[0], payer)
    return False


def _sequence(node: Node, payer: Sender) -> int:
    return Account.decode(_value(node, state_keys.account(payer.address))).sequence
