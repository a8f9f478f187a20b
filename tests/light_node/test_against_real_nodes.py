"""The light node against real nodes of either engine: other processes, real blocks, real proofs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol import records
from dllm_protocol.actions import Transfer
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.genesis import GenesisAccount
from dllm_protocol.refusals import InsufficientFunds, WrongSequence
from dllm_protocol.transaction import Transaction, TransactionBody, make_body, sign_transaction
from light_node.client import LightClient, TrustOptions, TrustStatus
from light_node.clock import SystemClock
from light_node.outcomes import Impossible, Included, Outcomes, Unknown
from light_node.queries import ProvedReads
from light_node.sending import Sender
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.full_node.cometbft.network import Network
from tests.light_node.signed_chain import signer

PAYER = signer("payer")
ACCOUNT = address_of(PAYER.public_key)
FUNDS_UDLLM = 100_000_000
FEE_UDLLM = 50_000
SOMEBODY = b"\x02" * 20


@dataclass(frozen=True, slots=True)
class Node:
    """A running node."""

    chain_id: str
    url: str


def _node_command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from full_node.cli import run; run()", *words]


@contextlib.contextmanager
def solo_node(folder: Path) -> Iterator[Node]:
    """A solo node of a fresh chain on which the payer has 100 DLLM."""
    home = str(folder / "home")
    account = f"{encode_address('local', ACCOUNT)}=100"
    made = subprocess.run(
        _node_command("init", "--home", home, "--account", account, "--json"),
        capture_output=True,
        text=True,
        check=True,
    )
    chain_id = json.loads(made.stdout)["data"]["chain_id"]
    running = subprocess.Popen(
        _node_command("start", "--home", home, "--lifeline"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    told: dict[str, Any] = json.loads(running.stdout.readline())
    yield Node(chain_id, f"ws://{told['address']}/websocket")
    running.stdin.close()
    running.wait(timeout=60)
    running.stdout.close()


@contextlib.contextmanager
def cometbft_node(folder: Path) -> Iterator[Node]:
    """A validator on CometBFT, the only one of its chain, on which the payer has 100 DLLM."""
    with Network.start(folder, 1, accounts=[GenesisAccount(ACCOUNT, FUNDS_UDLLM)]) as network:
        network.wait_for_height(1)
        yield Node(network.chain_id, network.nodes[0].websocket)


@pytest.fixture(scope="module", params=["solo", "cometbft"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A running node of either engine."""
    if request.param == "cometbft":
        request.getfixturevalue("cometbft")
    runs = {"solo": solo_node, "cometbft": cometbft_node}[request.param]
    with runs(tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.fixture
async def client(node: Node, tmp_path: Path) -> LightClient:
    """A client that trusts the chain's first header."""
    source = RpcSource(node.url)
    first = await source.signed_header(1)
    store = TrustStore(tmp_path / "trust.db", node.chain_id)
    root = TrustOptions(1, first.header.hash())
    return LightClient(node.chain_id, root, store, source, clock=SystemClock())


def _tx(chain_id: str, sequence: int, amount: int, timeout_height: int = 0) -> bytes:
    body = make_body(
        chain_id,
        ACCOUNT,
        PAYER.public_key,
        sequence,
        [Transfer(SOMEBODY, amount)],
        fee_udllm=FEE_UDLLM,
        timeout_height=timeout_height,
    )
    return sign_transaction(PAYER, body).encode()


async def test_a_transfer_is_sent_proved_and_read(client: LightClient, node: Node) -> None:
    reads, outcomes = ProvedReads(client), Outcomes(client)
    before = await reads.account(ACCOUNT)
    assert before is not None
    since = (await client.sync()).height
    raw = _tx(node.chain_id, before.sequence, 1_000_000)
    assert isinstance(await outcomes.outcome(raw, since_height=since), Unknown)
    await outcomes.send(raw)
    outcome = await outcomes.wait_for(raw, since_height=since)
    assert isinstance(outcome, Included)
    assert outcome.succeeded
    after = await reads.account(ACCOUNT)
    assert after == records.Account(before.balance_udllm - 1_000_000 - FEE_UDLLM, before.sequence + 1)
    assert await reads.account(b"\x77" * 20) is None
    assert client.status().state is TrustStatus.VERIFIED
    # The state before the transfer is still proved, at its own height.
    assert await reads.account(ACCOUNT, outcome.height - 1) == before
    other = _tx(node.chain_id, before.sequence, 2_000_000)
    assert isinstance(await outcomes.outcome(other, since_height=since), Impossible)
    await client.close()


async def test_refusals_come_by_name(client: LightClient, node: Node) -> None:
    reads, outcomes = ProvedReads(client), Outcomes(client)
    account = await reads.account(ACCOUNT)
    assert account is not None
    with pytest.raises(InsufficientFunds):
        await outcomes.send(_tx(node.chain_id, account.sequence, FUNDS_UDLLM * 2))
    sent = _tx(node.chain_id, account.sequence, 5)
    await outcomes.send(sent)
    assert isinstance(await outcomes.wait_for(sent), Included)
    with pytest.raises(WrongSequence):
        await outcomes.send(_tx(node.chain_id, account.sequence, 6))
    await client.close()


async def test_every_kind_of_answer_is_read(client: LightClient, node: Node) -> None:
    tip = await client.sync()
    source = client.primary
    status = await source.status()
    assert (status.chain_id, status.earliest_height) == (node.chain_id, 1)
    for height in range(1, tip.height + 1):
        header = await client.verified_header(height)
        _, block = await source.block(height)
        block.validate_basic()
        assert block.header == header
        assert len(await source.block_results(height)) == len(block.txs)
        assert (await source.validators(height)).hash() == header.validators_hash
    assert (await source.validators(tip.height + 1)).hash() == tip.next_validators_hash
    found, total = await source.tx_search("tx.height>=1", 1, 30)
    assert len(found) == total
    await client.close()


class Terminal:
    """One of several programs that sign for one account."""

    account = ACCOUNT
    public_key = PAYER.public_key

    def sign(self, body: TransactionBody) -> Transaction:
        return sign_transaction(PAYER, body)


async def test_terminals_on_one_account_all_get_through(client: LightClient, node: Node) -> None:
    reads = ProvedReads(client)
    before = await reads.account(ACCOUNT)
    senders = [Sender(node.chain_id, reads) for _ in range(3)]
    sent = await asyncio.gather(
        *(one.send(Terminal(), [Transfer(SOMEBODY, n)], timeout_s=100) for n, one in enumerate(senders, 1))
    )
    assert len({one.tx_hash for one in sent}) == 3
    after = await reads.account(ACCOUNT)
    assert before is not None
    assert after is not None
    assert after.sequence == before.sequence + 3
    await client.close()


async def test_a_transaction_that_comes_before_its_predecessor_gets_through(
    client: LightClient, node: Node
) -> None:
    reads, outcomes = ProvedReads(client), Outcomes(client)
    account = await reads.account(ACCOUNT)
    assert account is not None
    first, second = (_tx(node.chain_id, account.sequence + n, 7) for n in range(2))
    early = asyncio.create_task(outcomes.send(second))
    await asyncio.sleep(0.2)
    await outcomes.send(first)
    await early
    for raw in (first, second):
        found = await outcomes.wait_for(raw, timeout_s=60)
        assert isinstance(found, Included)
        assert found.succeeded
    await client.close()
