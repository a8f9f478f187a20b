"""Whatever is changed in a signed header, a changed header is never believed and no signature counts for another."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.commit import BlockIDFlag, Commit
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.header import Header
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import Success, TrustedState, verify
from dllm_protocol.verification.voting_power import tally_by_index
from tests.light_node.signed_chain import CHAIN_ID, SignedChain

OPTIONS = VerificationOptions(CHAIN_ID)
CHAIN = SignedChain(("a", "b", "c", "d"))
CHAIN.grow(6)
NOW = CHAIN.blocks[6].header.time.add_ms(60_000)
TRUSTED = TrustedState.of(CHAIN.light_block(2))
HEIGHTS = st.sampled_from([3, 5])


def _is_believed(block: LightBlock) -> bool:
    return verify(block, TRUSTED, OPTIONS, NOW) == Success()


@given(HEIGHTS, st.data())
def test_a_header_with_a_changed_byte_is_never_believed(height: int, data: st.DataObject) -> None:
    honest = CHAIN.light_block(height)
    encoded = bytearray(honest.header.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        header = Header.decode(bytes(encoded))
    except MalformedBytes:
        return
    commit = honest.signed_header.commit
    moved = replace(commit, block_id=replace(commit.block_id, hash=header.hash()))
    for given_commit in (commit, moved):
        assert not _is_believed(replace(honest, signed_header=SignedHeader(header, given_commit)))


@given(HEIGHTS, st.data())
def test_a_commit_with_a_changed_byte_adds_no_power(height: int, data: st.DataObject) -> None:
    honest = CHAIN.light_block(height)
    encoded = bytearray(honest.signed_header.commit.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        commit = Commit.decode(bytes(encoded))
        tally = tally_by_index(CHAIN_ID, honest.validators, commit, stop_early=False)
    except (MalformedBytes, InvalidBlock):
        return
    assert tally.signed_power <= 30


@given(st.permutations(range(4)), st.sampled_from([2, 3, 4, 5]))
def test_signatures_of_others_heights_and_places_do_not_count(order: list[int], other: int) -> None:
    commit, donor = CHAIN.commits[6], CHAIN.commits[other]
    borrowed = tuple(
        replace(one, signature=donor.signatures[order[at]].signature)
        for at, one in enumerate(commit.signatures)
    )
    tally = tally_by_index(CHAIN_ID, CHAIN.set_at(6), replace(commit, signatures=borrowed), stop_early=False)
    assert tally.signed_power == 0
    swapped = tuple(
        replace(one, signature=commit.signatures[order[at]].signature)
        for at, one in enumerate(commit.signatures)
    )
    tally = tally_by_index(CHAIN_ID, CHAIN.set_at(6), replace(commit, signatures=swapped), stop_early=False)
    assert tally.signed_power == 10 * sum(order[at] == at for at in range(4))


@given(st.lists(st.sampled_from(list(BlockIDFlag)), min_size=4, max_size=4))
def test_relabelled_votes_do_not_count(flags: list[BlockIDFlag]) -> None:
    """A vote for the block does not become one for nothing, and what is not for the block does not count."""
    commit = CHAIN.commits[6]
    relabelled = tuple(replace(one, flag=flag) for one, flag in zip(commit.signatures, flags, strict=True))
    tally = tally_by_index(
        CHAIN_ID, CHAIN.set_at(6), replace(commit, signatures=relabelled), stop_early=False
    )
    assert tally.signed_power == 10 * flags.count(BlockIDFlag.COMMIT)
