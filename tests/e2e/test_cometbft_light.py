"""CometBFT's own light client on our chains: it verifies them through our RPC, and sees through a lie.

That it refuses what is wrong is tested too, else its agreement would mean nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dllm_protocol.block import SignedHeader
from dllm_protocol.block_json import signed_header_from_json, signed_header_to_json
from dllm_protocol.commit import BlockIDFlag, Commit, CommitSig
from dllm_protocol.signing import SeedSigner
from dllm_protocol.validator_set import address_of
from full_node.home import NodeHome
from full_node.keys import load_key
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.e2e.lying_http_node import lying_http_node
from tests.e2e.lying_node import Lie
from tests.full_node.processes import NodeProcess, Sender, call, init_with, send_and_wait
from tools.conformance.comet_light import CometLight, LightRefused, LightTarget

TRANSFERS = 12
pytestmark = pytest.mark.conformance("cometbft-light")
LightMaker = Callable[..., CometLight]


@dataclass(frozen=True, slots=True)
class Chain:
    """A running chain and what its node says of it, unverified."""

    chain_id: str
    url: str
    hashes: dict[int, str]
    """Upper hex of the header hash by height, 1 to the tip."""
    validator_key: SeedSigner
    """The key that signs all of it."""

    @property
    def tip(self) -> int:
        """The newest height."""
        return max(self.hashes)

    def target(self, trust_height: int = 1, **options: Any) -> LightTarget:
        """What a light client of this chain is told."""
        asked: dict[str, Any] = {"primary": self.url, "witnesses": [self.url], **options}
        return LightTarget(
            self.chain_id, trust_height=trust_height, trust_hash=self.hashes[trust_height], **asked
        )


async def header_hashes(url: str) -> dict[int, str]:
    """Block hash by height as the node gives it out."""
    async with aiohttp.ClientSession() as http:
        status = await call(http, url, "status")
        tip = int(status["sync_info"]["latest_block_height"])
        found = {}
        for height in range(1, tip + 1):
            commit = await call(http, url, "commit", height=str(height))
            found[height] = commit["signed_header"]["commit"]["block_id"]["hash"]
        return found


async def make_blocks(url: str, sender: Sender) -> None:
    """Transfers, each in a block of its own."""
    async with aiohttp.ClientSession() as http:
        for _ in range(TRANSFERS):
            await send_and_wait(http, url, sender.transfer(bytes(range(20)), 1))
        # The block that proves the last one's state comes by itself; then nothing moves any more.
        last = await call(http, url, "status")
        async with asyncio.timeout(60):
            while True:
                await asyncio.sleep(0.5)
                newest = await call(http, url, "status")
                if newest == last:
                    return
                last = newest


@pytest.fixture(scope="module")
def solo_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A solo node with two dozen blocks."""
    home = tmp_path_factory.mktemp("solo") / "node"
    sender = Sender.numbered(1)
    chain_id = init_with(home, [sender])
    node = NodeProcess.start(home)
    try:
        asyncio.run(make_blocks(node.url, sender))
        hashes = asyncio.run(header_hashes(node.url))
        assert len(hashes) > TRANSFERS
        yield Chain(chain_id, node.url, hashes, load_key(NodeHome(home).key))
    finally:
        node.kill()


@pytest.fixture
def light(tmp_path: Path, cometbft: Path) -> Iterator[LightMaker]:
    """Starts `cometbft light` processes, which end with the test."""
    started: list[CometLight] = []

    def start(target: LightTarget) -> CometLight:
        started.append(CometLight(cometbft, tmp_path / f"light-{len(started)}", target))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_skips_to_the_tip_and_fills_in_between(light: LightMaker, solo_chain: Chain) -> None:
    client = light(solo_chain.target())
    tip = solo_chain.tip
    for height in (tip, tip // 2, tip // 4, tip - 1, 2):
        assert client.header_hash(height) == solo_chain.hashes[height]


def test_goes_forwards_header_by_header(light: LightMaker, solo_chain: Chain) -> None:
    client = light(solo_chain.target(sequential=True))
    assert client.header_hash(solo_chain.tip) == solo_chain.hashes[solo_chain.tip]
    assert {height: client.header_hash(height) for height in solo_chain.hashes} == solo_chain.hashes


def test_walks_backwards_from_a_root_at_the_tip(light: LightMaker, solo_chain: Chain) -> None:
    client = light(solo_chain.target(solo_chain.tip))
    for height in (solo_chain.tip - 1, solo_chain.tip // 2, 1):
        assert client.header_hash(height) == solo_chain.hashes[height]


def test_passes_on_what_else_it_can_verify(light: LightMaker, solo_chain: Chain) -> None:
    client = light(solo_chain.target())
    for height in (2, solo_chain.tip // 2):
        asked = {"height": str(height)}
        assert client.ask("header", **asked)["header"]["height"] == str(height)
        assert client.ask("block", **asked)["block_id"]["hash"] == solo_chain.hashes[height]
        assert client.ask("block_results", **asked)["height"] == str(height)
        assert client.ask("consensus_params", **asked)["block_height"] == str(height)
        members = client.ask("validators", **asked)["validators"]
        assert [one["address"] for one in members] == [
            address_of(solo_chain.validator_key.public_key).hex().upper()
        ]


def test_our_own_light_node_sees_the_same_tip(light: LightMaker, solo_chain: Chain, tmp_path: Path) -> None:
    async def ours() -> str:
        source = RpcSource(solo_chain.url.replace("http", "ws", 1) + "/websocket")
        trust = TrustOptions(1, bytes.fromhex(solo_chain.hashes[1]))
        store = TrustStore(tmp_path / "trust.db", solo_chain.chain_id)
        client = LightClient(solo_chain.chain_id, trust, store, source, clock=SystemClock())
        try:
            return (await client.verified_header(solo_chain.tip)).hash().hex().upper()
        finally:
            await client.close()

    assert light(solo_chain.target()).header_hash(solo_chain.tip) == asyncio.run(ours())


def test_refuses_another_root(light: LightMaker, solo_chain: Chain) -> None:
    target = replace(solo_chain.target(), trust_hash=solo_chain.hashes[2])
    with pytest.raises(LightRefused, match="expected header's hash"):
        light(target)


def forged(chain: Chain, height: int, signer: SeedSigner) -> Callable[[Any, Any], Any]:
    """Answers to `commit` whose header at a height claims another state, signed anew by a key."""

    def lie(result: Any, _: Any) -> Any:
        honest = signed_header_from_json(result["signed_header"])
        if honest.header.height != height:
            return result
        header = replace(honest.header, app_hash=bytes(32))
        entry = honest.commit.signatures[0]
        commit = replace(honest.commit, block_id=replace(honest.commit.block_id, hash=header.hash()))
        signature = signer.sign(commit.sign_bytes(chain.chain_id, 0))
        signed = CommitSig(BlockIDFlag.COMMIT, entry.validator_address, entry.timestamp, signature)
        commit = Commit(commit.height, commit.round, commit.block_id, (signed,))
        return result | {"signed_header": signed_header_to_json(SignedHeader(header, commit))}

    return lie


async def ask_with_liar(
    light: LightMaker, chain: Chain, lie: Callable[[Any, Any], Any], *, as_primary: bool
) -> tuple[str, str]:
    """What the light client says about the tip (its refusal's words), and its log, with a liar beside the truth."""
    async with lying_http_node(chain.url, Lie("commit", answer=lie)) as liar:
        nodes = (liar, chain.url) if as_primary else (chain.url, liar)

        def ask() -> tuple[str, str]:
            client = light(chain.target(primary=nodes[0], witnesses=[nodes[1]]))
            try:
                return client.header_hash(chain.tip), client.log()
            except LightRefused as refused:
                return str(refused), client.log()

        return await asyncio.to_thread(ask)


async def test_a_primary_without_the_validator_s_key_convinces_it_of_nothing(
    light: LightMaker, solo_chain: Chain
) -> None:
    lie = forged(solo_chain, solo_chain.tip, SeedSigner(bytes(32)))
    said, _ = await ask_with_liar(light, solo_chain, lie, as_primary=True)
    assert "wrong signature" in said


async def test_a_fork_that_a_witness_can_show_signed_is_an_attack(
    light: LightMaker, solo_chain: Chain
) -> None:
    lie = forged(solo_chain, solo_chain.tip, solo_chain.validator_key)
    said, log = await ask_with_liar(light, solo_chain, lie, as_primary=False)
    assert "attempted attack detected" in said, said + log
