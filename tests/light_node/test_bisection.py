"""Skipping forwards and walking backwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.block import LightBlock
from dllm_protocol.header import Header
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import TrustedState
from light_node.bisection import BACKWARDS_MAX, skip_forwards, walk_backwards
from light_node.errors import HeaderRefused, RootExpired
from tests.light_node.signed_chain import CHAIN_ID, ManualClock, SignedChain

OPTIONS = VerificationOptions(CHAIN_ID)


class Fetcher:
    """Serves blocks and remembers which were asked."""

    def __init__(self, chain: SignedChain) -> None:
        self.chain = chain
        self.asked: list[int] = []

    async def block(self, height: int) -> LightBlock:
        self.asked.append(height)
        return self.chain.light_block(height)

    async def header(self, height: int) -> Header:
        self.asked.append(height)
        return self.chain.blocks[height].header


def _changing_chain(heights: int) -> SignedChain:
    """Four validators of which one is exchanged at each height, so that trust wears out."""
    made = SignedChain(("v0", "v1", "v2", "v3"))
    for height in range(1, heights + 1):
        made.add(next_names=[f"v{height + offset}" for offset in range(4)])
    return made


async def test_an_unchanged_set_is_skipped_in_one_step(chain: SignedChain, clock: ManualClock) -> None:
    fetcher = Fetcher(chain)
    trusted = TrustedState.of(chain.light_block(1))
    trace = await skip_forwards(chain.light_block(10), trusted, fetcher.block, OPTIONS, clock.now)
    assert [one.height for one in trace] == [10]
    assert fetcher.asked == []


async def test_worn_out_trust_is_renewed_at_nine_sixteenths(clock: ManualClock) -> None:
    made = _changing_chain(40)
    clock.advance_s(60)
    fetcher = Fetcher(made)
    trusted = TrustedState.of(made.light_block(1))
    trace = await skip_forwards(made.light_block(40), trusted, fetcher.block, OPTIONS, clock.now)
    heights = [one.height for one in trace]
    assert fetcher.asked[0] == 1 + 39 * 9 // 16
    assert heights == sorted(heights)
    assert heights[-1] == 40
    assert len(heights) > 2


async def test_a_pivot_that_lies_is_refused(clock: ManualClock) -> None:
    made = _changing_chain(40)
    clock.advance_s(60)

    async def lying(height: int) -> LightBlock:
        honest = made.light_block(height)
        header = replace(honest.header, app_hash=bytes(32))
        return replace(honest, signed_header=replace(honest.signed_header, header=header))

    trusted = TrustedState.of(made.light_block(1))
    with pytest.raises(HeaderRefused, match="commit block hash: claimed"):
        await skip_forwards(made.light_block(40), trusted, lying, OPTIONS, clock.now)


async def test_a_pivot_of_another_height_is_refused(clock: ManualClock) -> None:
    made = _changing_chain(40)
    clock.advance_s(60)

    async def elsewhere(height: int) -> LightBlock:
        return made.light_block(height + 1)

    trusted = TrustedState.of(made.light_block(1))
    with pytest.raises(HeaderRefused, match="asked for header 22, was given header 23"):
        await skip_forwards(made.light_block(40), trusted, elsewhere, OPTIONS, clock.now)


async def test_expired_trust_says_what_to_do(chain: SignedChain, clock: ManualClock) -> None:
    clock.advance_s(8 * 24 * 3600)
    fetcher = Fetcher(chain)
    trusted = TrustedState.of(chain.light_block(1))
    with pytest.raises(RootExpired) as caught:
        await skip_forwards(chain.light_block(10), trusted, fetcher.block, OPTIONS, clock.now)
    assert "two sources" in caught.value.hint


async def test_the_hash_chain_leads_backwards(chain: SignedChain) -> None:
    fetcher = Fetcher(chain)
    found = await walk_backwards(2, chain.blocks[10].header, fetcher.header, CHAIN_ID)
    assert found.hash() == chain.blocks[2].hash()


async def test_a_broken_hash_chain_names_both_hashes(chain: SignedChain) -> None:
    fetcher = Fetcher(chain)
    honest = chain.blocks[5]
    chain.blocks[5] = replace(honest, header=replace(honest.header, app_hash=b"\x01" * 32))
    with pytest.raises(HeaderRefused) as caught:
        await walk_backwards(3, chain.blocks[10].header, fetcher.header, CHAIN_ID)
    assert honest.hash().hex().upper() in caught.value.message
    assert chain.blocks[5].hash().hex().upper() in caught.value.message


async def test_backwards_has_a_limit(chain: SignedChain) -> None:
    fetcher = Fetcher(chain)
    far = replace(chain.blocks[10].header, height=BACKWARDS_MAX + 100)
    with pytest.raises(HeaderRefused, match=f"at most {BACKWARDS_MAX}"):
        await walk_backwards(3, far, fetcher.header, CHAIN_ID)
    assert fetcher.asked == []
