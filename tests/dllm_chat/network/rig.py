"""A signed chain of a test network, its nodes by address, and bundles that describe it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from dllm_chat.network.open_light import OpenLight
from dllm_chat.paths import Paths, find_paths
from dllm_chat.session.networks import light_store_file
from dllm_protocol.block import block_id_of
from dllm_protocol.bundle import NetworkBundle, SignedBundle, chain_id_of, sign_bundle
from dllm_protocol.genesis import Genesis
from dllm_protocol.signing import SeedSigner, Signer
from dllm_protocol.validator_set import address_of
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient
from light_node.errors import HeightUnavailable
from light_node.source import Source
from light_node.trust_store import TrustStore
from tests.dllm_protocol.test_bundle import make_bundle
from tests.light_node.signed_chain import ChainSource, ManualClock, SignedChain, signed_commit, signer

PUBLISHER = SeedSigner(b"\x0a" * 32)
NODE = "ws://node.example:1/websocket"
WITNESS = "ws://witness.example:1/websocket"
DAY_S = 86_400


class PrunedSource(ChainSource):
    """A node that keeps only its newest blocks."""

    lowest = 1

    def _at(self, height: int | None) -> int:
        at = super()._at(height)
        if at < self.lowest:
            raise HeightUnavailable(f"height {at} is not available, lowest height is {self.lowest}")
        return at


@dataclass
class World:
    """One chain, and whatever nodes show it."""

    paths: Paths
    genesis: Genesis
    chain: SignedChain
    clock: ManualClock
    chains: dict[str, SignedChain] = field(default_factory=dict)
    """What nodes at other addresses show instead."""
    silent: set[str] = field(default_factory=set)
    lowest: int = 1

    def source(self, url: str) -> Source:
        """A new connection to the node at an address."""
        made = PrunedSource(self.chains.get(url, self.chain), url)
        made.offline = url in self.silent
        made.lowest = self.lowest
        return made

    def bundle(self, height: int = 1, chain: SignedChain | None = None) -> NetworkBundle:
        """The network, with a root at a height."""
        root = (chain or self.chain).blocks[height].hash()
        return NetworkBundle(1, self.genesis, height, root, (NODE,), (), (), "")

    def signed(self, height: int = 1, signer: Signer = PUBLISHER) -> SignedBundle:
        """The same, signed."""
        return sign_bundle(signer, self.bundle(height))

    def grow(self, blocks: int) -> None:
        """More blocks, and a minute later."""
        self.chain.grow(blocks)
        self.clock.advance_s(60)

    def sleep(self, seconds: int, blocks: int) -> None:
        """Nobody looks for a while; then the chain makes more blocks."""
        self.clock.advance_s(seconds)
        tip = self.chain.blocks[self.chain.height]
        names = {
            address_of(signer(name).public_key): name for name in self.chain.validators[self.chain.height]
        }
        ordered = [names[one.address] for one in self.chain.set_at(self.chain.height).validators]
        self.chain.commits[self.chain.height] = signed_commit(
            self.chain.chain_id, block_id_of(tip), self.chain.height, ordered, self.clock.now()
        )
        self.grow(blocks)

    def open(self) -> OpenLight:
        """The light node of the joined network; the caller closes its store."""
        bundle = self.bundle()
        store = TrustStore(light_store_file(self.paths, bundle.chain_id), bundle.chain_id)
        client = LightClient(
            bundle.chain_id,
            trust_options_of(bundle),
            store,
            self.source(NODE),
            [self.source(WITNESS)],
            clock=self.clock,
        )
        return OpenLight(client, store, bundle, PUBLISHER.public_key, (WITNESS,))


def make_world(folder: Path) -> World:
    """Ten blocks by four validators, on a network for real money."""
    genesis = replace(make_bundle("dllm").genesis, name="signed")
    chain = SignedChain(("a", "b", "c", "d"), chain_id_of(genesis))
    chain.grow(10)
    clock = ManualClock(chain.blocks[10].header.time)
    clock.advance_s(60)
    return World(find_paths(folder), genesis, chain, clock)
