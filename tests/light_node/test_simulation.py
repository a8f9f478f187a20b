"""Many chains, validator changes and lying nodes, by seed, against an oracle that knows the honest chain.

As long as liars have less than a third of the power at every height, a client never stores and never returns a header
that the honest chain does not have; and with an honest primary and an honest witness it reaches the tip.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.block import SignedHeader
from dllm_protocol.commit import BlockIDFlag, Commit, CommitSig
from dllm_protocol.errors import DllmError
from dllm_protocol.header import Header
from dllm_protocol.validator_set import ValidatorSet
from light_node.client import LightClient, TrustOptions
from light_node.errors import HeightUnavailable, SourceMalformed, SourceTimedOut
from light_node.trust_store import TrustStore
from tests.light_node.signed_chain import ChainSource, ManualClock, SignedChain

HONEST = tuple(f"h{number}" for number in range(8))
LIARS = tuple(f"l{number}" for number in range(4))
STEPS = 12


def _named(rng: random.Random) -> tuple[str, ...]:
    """A set of validators in which liars have less than a third."""
    honest = [f"{name}:{rng.randint(5, 30)}" for name in rng.sample(HONEST, rng.randint(3, 6))]
    left = (sum(_power(name) for name in honest) - 1) // 2
    found = list(honest)
    for name in rng.sample(LIARS, rng.randint(0, len(LIARS))):
        power = rng.randint(1, 12)
        if power <= left:
            left -= power
            found.append(f"{name}:{power}")
    return tuple(found)


def _power(name: str) -> int:
    return int(name.partition(":")[2])


def grow(rng: random.Random, chain: SignedChain, blocks: int) -> None:
    """Honest blocks; liars may abstain, sets change now and then, by a little or altogether."""
    for _ in range(blocks):
        members = chain.validators[chain.height + 1]
        signing = [name for name in members if _is_honest(name) or rng.random() < 0.5]
        chain.add(next_names=_named(rng) if rng.random() < 0.3 else None, signing=signing)


def _is_honest(name: str) -> bool:
    return name.startswith("h")


def forge(rng: random.Random, chain: SignedChain) -> SignedChain:
    """What liars can make of a chain: from some height on their own state, set or time, signed by whom they can."""
    start = rng.randint(2, chain.height)
    made = chain.forked(start)
    strangers = tuple(f"x{number}:{rng.randint(1, 60)}" for number in range(rng.randint(0, 4)))
    liars = tuple(name for name in chain.validators[start] if not _is_honest(name))
    way = rng.choice(("own set", "announced set", "same set", "hurried"))
    mine = (*liars, *strangers) or ("x9:1",)
    if way == "own set":
        made.validators[start] = made.validators[start + 1] = mine
    for _ in range(rng.randint(1, chain.height - start + 3)):
        lie: dict[str, object] = {"app_hash": rng.randbytes(32)} if rng.random() < 0.8 else {}
        if way == "hurried":
            lie["time"] = chain.blocks[chain.height].header.time.add_ms(-rng.randint(0, 2000))
        signing = None if way == "own set" else [*liars, *strangers]
        next_names = mine if way == "announced set" else None
        made.add([b"forged"], signing=signing, next_names=next_names, lie=lie)
        commit = made.commits[made.height]
        if all(one.flag is BlockIDFlag.ABSENT for one in commit.signatures):
            made.commits[made.height] = _with_a_made_up_signature(rng, made)
    return made


def _with_a_made_up_signature(rng: random.Random, chain: SignedChain) -> Commit:
    commit, block = chain.commits[chain.height], chain.blocks[chain.height]
    address = chain.set_at(chain.height).validators[0].address
    entry = CommitSig(BlockIDFlag.COMMIT, address, block.header.time.add_ms(1000), rng.randbytes(64))
    return replace(commit, signatures=(entry, *commit.signatures[1:]))


class Liar(ChainSource):
    """Serves a forged chain where it has one, and spoils an answer now and then."""

    def __init__(self, rng: random.Random, honest: SignedChain, name: str) -> None:
        super().__init__(honest, name)
        self._rng = rng
        self._honest_chain = honest
        self.lie_anew()

    def lie_anew(self) -> None:
        """Another forgery, over the chain as it is now."""
        self.chain = forge(self._rng, self._honest_chain)

    async def signed_header(self, height: int | None) -> SignedHeader:
        fate = self._rng.random()
        if fate < 0.05:
            raise SourceTimedOut(f"{self.name} did not answer")
        if fate < 0.08:
            raise SourceMalformed(f"{self.name} sent rubbish")
        if fate < 0.3 and height is not None and height <= self._honest_chain.height:
            found = self._honest_chain.signed_header(height)
        else:
            found = await super().signed_header(height)
        if fate > 0.9:
            return replace(found, header=replace(found.header, data_hash=self._rng.randbytes(32)))
        return found

    async def validators(self, height: int) -> ValidatorSet:
        if self._rng.random() < 0.3 and height in self._honest_chain.validators:
            return self._honest_chain.set_at(height)
        if height not in self.chain.validators:
            raise HeightUnavailable(f"height {height} must be less than or equal to {self.chain.height + 1}")
        return await super().validators(height)


class World:
    """One seed's chain, nodes and client."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.chain = SignedChain(_named(self.rng))
        grow(self.rng, self.chain, self.rng.randint(5, 30))
        self.clock = ManualClock(self.chain.blocks[self.chain.height].header.time)
        self.clock.advance_s(5)
        self.nodes = [
            ChainSource(self.chain, f"honest-{number}") for number in range(self.rng.randint(1, 3))
        ] + [Liar(self.rng, self.chain, f"liar-{number}") for number in range(self.rng.randint(1, 3))]
        root = self.rng.randint(1, self.chain.height)
        self.root = TrustOptions(root, self.chain.blocks[root].hash())
        self.client = self.begin()

    def begin(self) -> LightClient:
        """A process begins on the store that the last one left."""
        nodes = list(self.nodes)
        self.rng.shuffle(nodes)
        self.store = TrustStore(self.folder / "light.db", self.chain.chain_id, keep_blocks=20)
        return self.client_of(nodes)

    def client_of(self, nodes: Sequence[ChainSource]) -> LightClient:
        """A client whose primary is the first of these."""
        return LightClient(self.chain.chain_id, self.root, self.store, nodes[0], nodes[1:], clock=self.clock)

    def check(self) -> None:
        """The store holds nothing that the oracle does not know."""
        height = 0
        while (block := self.store.at_or_above(height)) is not None:
            assert block.hash() == self.chain.blocks[block.height].hash(), f"stored {block.height}"
            height = block.height + 1
        assert self.store.count() <= 20

    async def step(self) -> None:
        """Something happens."""
        match self.rng.choice(("sync", "sync", "ask", "grow", "lie", "offline", "restart")):
            case "sync":
                self._returns(await self.client.sync())
            case "ask":
                height = self.rng.randint(1, self.chain.height + 1)
                self._returns(await self.client.verified_header(height))
            case "grow":
                grow(self.rng, self.chain, self.rng.randint(1, 12))
                self.clock.advance_s(20)
            case "lie":
                for node in self.nodes:
                    if isinstance(node, Liar):
                        node.lie_anew()
            case "offline":
                node = self.rng.choice(self.nodes)
                node.offline = not node.offline
            case "restart":
                self.store.close()
                self.client = self.begin()

    def _returns(self, header: Header) -> None:
        assert header == self.chain.blocks[header.height].header, f"returned {header}"


async def simulate(seed: int, folder: Path) -> None:
    world = World(seed, folder)
    for _ in range(STEPS):
        with suppress(DllmError):  # refusing is right; what matters is what was believed
            await world.step()
        world.check()
    honest = [node for node in world.nodes if not isinstance(node, Liar)]
    if len(honest) > 1:
        # Nobody stands in the way of an honest primary with an honest witness.
        liars = [node for node in world.nodes if isinstance(node, Liar)]
        for node in world.nodes:
            node.offline = False
        # A root that any witness contradicts is not taken, so that is settled among the honest.
        await world.client_of(honest).verified_header(world.root.height)
        client = world.client_of([honest[0], *liars, *honest[1:]])
        tip = await client.sync()
        assert tip.hash() == world.chain.blocks[world.chain.height].hash()
        world.check()
    world.store.close()


@pytest.mark.parametrize("seed", range(40))
async def test_nothing_is_believed_that_the_honest_chain_does_not_have(seed: int, tmp_path: Path) -> None:
    await simulate(seed, tmp_path)


@pytest.mark.long
async def test_nothing_is_believed_over_many_seeds(tmp_path: Path) -> None:
    for seed in range(1000, 1500):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await simulate(seed, folder)
