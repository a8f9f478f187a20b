"""Blocks: bytes, parts, data hash, and that a header covers them."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from dllm_protocol import merkle
from dllm_protocol.block import (
    PART_BYTES,
    Block,
    PartSet,
    block_id_of,
    data_hash,
    tx_hash,
    tx_proof,
    verify_tx,
)
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.commit import Commit
from tests.light_node.signed_chain import SignedChain
from tests.vectors.record_consensus import made_chain, made_evidence


def test_transactions_are_hashed_twice() -> None:
    leaf = sha256(b"\x00" + sha256(b"tx").digest()).digest()
    assert data_hash([b"tx"]) == leaf
    assert data_hash([]) == sha256(b"").digest()
    txs = [b"a", b"b", b"c"]
    verify_tx(tx_proof(txs, 1), data_hash(txs), b"b")
    with pytest.raises(InvalidBlock, match="leaf hash: claimed"):
        verify_tx(tx_proof(txs, 1), data_hash(txs), b"c")
    assert tx_hash(b"tx") == sha256(b"tx").digest()


def test_parts_are_cut_at_64_kib_and_proved() -> None:
    for size, count in ((1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 2), (3 * PART_BYTES, 3)):
        encoded = bytes(size)
        parts = PartSet.from_bytes(encoded)
        assert parts.header.total == len(parts.parts) == count
        assert b"".join(parts.parts) == encoded
        for index in range(count):
            part = parts.part(index)
            merkle.verify(part.proof, parts.header.hash, part.payload)


def test_a_block_with_evidence_leads_back() -> None:
    chain = made_chain()
    evidence = made_evidence(chain)
    evidence.validate_basic()
    block = Block(chain.blocks[5].header, (b"", b"tx"), (evidence,), chain.blocks[5].last_commit)
    assert Block.decode(block.encode()) == block
    assert block_id_of(block).hash == block.header.hash()


def test_a_header_covers_its_block() -> None:
    chain = made_chain()
    for block in chain.blocks.values():
        block.validate_basic()
    block = chain.blocks[3]
    for changed, words in (
        (replace(block, txs=block.txs[:1]), "data_hash: claimed"),
        (replace(block, last_commit=Commit.empty()), "last_commit_hash: claimed"),
        (replace(block, evidence=(made_evidence(chain),)), "evidence_hash: claimed"),
    ):
        with pytest.raises(InvalidBlock, match=words):
            changed.validate_basic()


def test_a_signed_header_belongs_together(chain_of_two: SignedChain) -> None:
    signed = chain_of_two.signed_header(2)
    signed.validate_basic(chain_of_two.chain_id)
    with pytest.raises(InvalidBlock, match="claimed signed-chain, found other"):
        signed.validate_basic("other")
    with pytest.raises(InvalidBlock, match="commit height: claimed 1, found 2"):
        replace(signed, commit=chain_of_two.commits[1]).validate_basic(chain_of_two.chain_id)
    other = replace(signed.header, app_hash=bytes(32))
    with pytest.raises(InvalidBlock, match="commit block hash"):
        replace(signed, header=other).validate_basic(chain_of_two.chain_id)


@pytest.fixture
def chain_of_two() -> SignedChain:
    """Two blocks."""
    chain = SignedChain()
    chain.grow(2)
    return chain


def test_missing_parts_of_a_block_are_refused(chain_of_two: SignedChain) -> None:
    encoded = chain_of_two.blocks[2].encode()
    with pytest.raises(MalformedBlock, match="lacks field 2"):
        Block.decode(b"")
    with pytest.raises(MalformedBlock):
        Block.decode(encoded[:-1])
