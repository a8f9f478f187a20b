"""Whole blocks and their parts (CometBFT v0.38, types/block.go and types/part_set.go).

The light forms of a block, which carry no transactions, are shown here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from dllm_protocol import merkle
from dllm_protocol.block_errors import MalformedBlock, require_equal
from dllm_protocol.comet_wire import BYTES, message_field, read_fields
from dllm_protocol.commit import BlockID, Commit, PartSetHeader
from dllm_protocol.evidence import Evidence, decode_evidence, encode_evidence, evidence_hash
from dllm_protocol.header import Header
from dllm_protocol.light_block import LightBlock, SignedHeader

__all__ = [
    "BLOCK_BYTES_MAX",
    "PART_BYTES",
    "Block",
    "LightBlock",
    "Part",
    "PartSet",
    "SignedHeader",
    "block_id_of",
    "data_hash",
    "tx_hash",
    "tx_proof",
    "verify_tx",
]

PART_BYTES = 65_536
BLOCK_BYTES_MAX = 104_857_600
"""CometBFT's hard bound on a block (100 MiB)."""


def tx_hash(tx: bytes) -> bytes:
    """Return the name of a transaction: sha256 of its bytes."""
    return sha256(tx).digest()


def data_hash(txs: Sequence[bytes]) -> bytes:
    """Return the header's data_hash: Merkle root over transaction hashes; sha256("") without any."""
    return merkle.root([tx_hash(tx) for tx in txs])


def tx_proof(txs: Sequence[bytes], index: int) -> merkle.Proof:
    """Return the proof that the transaction at `index` is under data_hash."""
    return merkle.proof([tx_hash(tx) for tx in txs], index)


def verify_tx(proof: merkle.Proof, expected_data_hash: bytes, tx: bytes) -> None:
    """Check that a transaction is under a header's data_hash; raises InvalidBlock."""
    merkle.verify(proof, expected_data_hash, tx_hash(tx))


@dataclass(frozen=True, slots=True)
class Block:
    """A header with everything that its hashes cover."""

    header: Header
    txs: tuple[bytes, ...]
    evidence: tuple[Evidence, ...]
    last_commit: Commit
    """Signatures over the block before; `Commit.empty()` in the first block."""

    def hash(self) -> bytes:
        """Return the block's hash, which is its header's."""
        return self.header.hash()

    def encode(self) -> bytes:
        """Return Block{header=1, data=2, evidence=3, last_commit=4}, all four always written."""
        data = b"".join(message_field(1, tx) for tx in self.txs)
        evidence = b"".join(message_field(1, encode_evidence(one)) for one in self.evidence)
        return (
            message_field(1, self.header.encode())
            + message_field(2, data)
            + message_field(3, evidence)
            + message_field(4, self.last_commit.encode())
        )

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """Read what `encode` wrote; raises MalformedBlock."""
        if len(data) > BLOCK_BYTES_MAX:
            raise MalformedBlock(f"block has {len(data)} bytes, at most {BLOCK_BYTES_MAX}")
        fields = read_fields("Block", data, {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES})
        listed = frozenset({1})
        txs = read_fields("Data", fields.required(2), {1: BYTES}, listed).repeated(1)
        evidence = read_fields("EvidenceList", fields.required(3), {1: BYTES}, listed).repeated(1)
        return cls(
            Header.decode(fields.required(1)),
            tuple(txs),
            tuple(decode_evidence(one) for one in evidence),
            Commit.decode(fields.required(4)),
        )

    def validate_basic(self) -> None:
        """Check the header, the commit and the evidence, and that the header's hashes cover them.

        Raises:
            InvalidBlock: naming what disagrees.
        """
        self.header.validate_basic()
        self.last_commit.validate_basic()
        for one in self.evidence:
            one.validate_basic()
        require_equal("header last_commit_hash", self.header.last_commit_hash, self.last_commit.hash())
        require_equal("header data_hash", self.header.data_hash, data_hash(self.txs))
        require_equal("header evidence_hash", self.header.evidence_hash, evidence_hash(self.evidence))


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a block's bytes with the proof of its place."""

    index: int
    payload: bytes
    proof: merkle.Proof


@dataclass(frozen=True, slots=True)
class PartSet:
    """A block's bytes cut into pieces of PART_BYTES."""

    header: PartSetHeader
    parts: tuple[bytes, ...]

    @classmethod
    def from_block(cls, block: Block) -> PartSet:
        """Cut a block."""
        return cls.from_bytes(block.encode())

    @classmethod
    def from_bytes(cls, encoded: bytes) -> PartSet:
        """Cut encoded bytes; the last piece may be shorter."""
        parts = tuple(encoded[at : at + PART_BYTES] for at in range(0, len(encoded), PART_BYTES))
        return cls(PartSetHeader(len(parts), merkle.root(parts)), parts)

    def part(self, index: int) -> Part:
        """Return a piece with its proof; raises IndexError."""
        return Part(index, self.parts[index], merkle.proof(self.parts, index))


def block_id_of(block: Block) -> BlockID:
    """Return the id that validators sign: header hash and part set."""
    return BlockID(block.hash(), PartSet.from_block(block).header)
