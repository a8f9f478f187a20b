"""One constructor for each part that the light node's tests need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from light_node.client import LightClient, TrustOptions
from light_node.source import Source
from light_node.trust_store import TrustStore
from tests.light_node.signed_chain import CHAIN_ID, ChainSource, ManualClock, SignedChain

MakeClient = Callable[..., LightClient]


@pytest.fixture
def chain() -> SignedChain:
    """Ten blocks by four validators."""
    made = SignedChain(("a", "b", "c", "d"))
    made.grow(10)
    return made


@pytest.fixture
def source(chain: SignedChain) -> ChainSource:
    """An honest node of that chain."""
    return ChainSource(chain)


@pytest.fixture
def clock(chain: SignedChain) -> ManualClock:
    """A minute after the chain's tip."""
    made = ManualClock(chain.blocks[chain.height].header.time)
    made.advance_s(60)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TrustStore]:
    """An empty trust store."""
    with TrustStore(tmp_path / "light" / "trust.db", CHAIN_ID) as opened:
        yield opened


@pytest.fixture
def make_client(chain: SignedChain, source: ChainSource, store: TrustStore, clock: ManualClock) -> MakeClient:
    """Make a client that trusts block 1."""

    def make(
        primary: Source | None = None, witnesses: Sequence[Source] = (), root_height: int = 1
    ) -> LightClient:
        root = TrustOptions(root_height, chain.blocks[root_height].hash())
        return LightClient(CHAIN_ID, root, store, primary or source, witnesses, clock=clock)

    return make
