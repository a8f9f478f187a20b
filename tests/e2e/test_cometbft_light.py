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

from dllm_protocol.address import address_of as account_of
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
from tests.full_node.cometbft.network import Network
from tests.full_node.cometbft.story import STAKER_ACCOUNT, tell
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
    witness_url: str
    """Another node's RPC, where there is another."""
    hashes: dict[int, str]
    """Upper hex of the header hash by height, 1 to the tip."""
    landmarks: tuple[int, ...]
    """Heights around which something other than payments happened."""
    validator_key: SeedSigner
    """A key that signs; on a solo chain it signs alone."""

    @property
    def tip(self) -> int:
        """The newest height."""
        return max(self.hashes)

    def target(self, trust_height: int = 1, **options: Any) -> LightTarget:
        """What a light client of this chain is told."""
        asked: dict[str, Any] = {"primary": self.url, "witnesses": [self.witness_url], **options}
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
        yield Chain(chain_id, node.url, node.url, hashes, (), load_key(NodeHome(home).key))
    finally:
        node.kill()


@pytest.fixture(scope="module")
def cometbft_chain(tmp_path_factory: pytest.TempPathFactory, cometbft: Path) -> Iterator[Chain]:
    """Four validators on CometBFT, whose set has changed three times; see the story."""
    del cometbft  # the network finds it by itself; without it, this skips
    folder = tmp_path_factory.mktemp("cometbft")
    with Network.start(folder, validators=4, accounts=[STAKER_ACCOUNT]) as network:
        story = tell(network)
        first, second = network.nodes[:2]
        hashes = asyncio.run(header_hashes(first.url))
        landmarks = (story.staked + 1, story.staked + 2, story.unstaked + 2, story.punished)
        # Of four equal stakes the newcomer takes the seat of the highest address; this one's is not that.
        stays = min((node.signer for node in network.nodes[:-1]), key=lambda key: account_of(key.public_key))
        yield Chain(network.chain_id, first.url, second.url, hashes, landmarks, stays)


@pytest.fixture(params=["solo_chain", "cometbft_chain"])
def chain(request: pytest.FixtureRequest) -> Chain:
    """Both, in turn."""
    found: Chain = request.getfixturevalue(request.param)
    return found


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


def test_skips_to_the_tip_and_fills_in_between(light: LightMaker, chain: Chain) -> None:
    client = light(chain.target())
    for height in (chain.tip, chain.tip // 2, *chain.landmarks, chain.tip // 4, chain.tip - 1, 2):
        assert client.header_hash(height) == chain.hashes[height]


def test_goes_forwards_header_by_header(light: LightMaker, chain: Chain) -> None:
    client = light(chain.target(sequential=True))
    assert client.header_hash(chain.tip) == chain.hashes[chain.tip]
    assert {height: client.header_hash(height) for height in chain.hashes} == chain.hashes


def test_walks_backwards_from_a_root_at_the_tip(light: LightMaker, chain: Chain) -> None:
    client = light(chain.target(chain.tip))
    for height in (chain.tip - 1, chain.tip // 2, 1):
        assert client.header_hash(height) == chain.hashes[height]


def test_passes_on_what_else_it_can_verify(light: LightMaker, chain: Chain) -> None:
    client = light(chain.target())
    for height in (2, chain.tip // 2, *chain.landmarks):
        asked = {"height": str(height)}
        assert client.ask("header", **asked)["header"]["height"] == str(height)
        assert client.ask("block", **asked)["block_id"]["hash"] == chain.hashes[height]
        assert client.ask("block_results", **asked)["height"] == str(height)
        assert client.ask("consensus_params", **asked)["block_height"] == str(height)
        members = {one["address"] for one in client.ask("validators", **asked)["validators"]}
        assert address_of(chain.validator_key.public_key).hex().upper() in members


def test_the_set_changes_hands_before_its_eyes(light: LightMaker, cometbft_chain: Chain) -> None:
    client = light(cometbft_chain.target())

    def members(height: int) -> frozenset[str]:
        found = client.ask("validators", height=str(height))["validators"]
        return frozenset(one["address"] for one in found)

    before, during, after = (
        members(height) for height in (2, cometbft_chain.landmarks[1], cometbft_chain.tip)
    )
    assert len(before) == len(during) == 4
    assert len(before & during) == 3
    assert after < before


def test_our_own_light_node_sees_the_same(light: LightMaker, chain: Chain, tmp_path: Path) -> None:
    async def ours() -> dict[int, str]:
        first, second = (
            RpcSource(url.replace("http", "ws", 1) + "/websocket") for url in (chain.url, chain.witness_url)
        )
        trust = TrustOptions(1, bytes.fromhex(chain.hashes[1]))
        store = TrustStore(tmp_path / "trust.db", chain.chain_id)
        client = LightClient(chain.chain_id, trust, store, first, [second], clock=SystemClock())
        try:
            return {
                height: (await client.verified_header(height)).hash().hex().upper()
                for height in (chain.tip, *chain.landmarks, 2)
            }
        finally:
            await client.close()

    theirs = light(chain.target())
    assert asyncio.run(ours()) == {
        height: theirs.header_hash(height) for height in (chain.tip, *chain.landmarks, 2)
    }


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
