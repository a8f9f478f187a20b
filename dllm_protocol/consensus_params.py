"""Consensus parameters and the part of them that headers commit to (CometBFT v0.38, types/params.go).

How large a block may be follows from what ours may hold: our own bound of transactions, CometBFT's bound of evidence,
a header, and the commit of the largest validator set. CometBFT stops collecting a block's parts beyond it, before
anything is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from dllm_protocol.comet_wire import varint_field
from dllm_protocol.staking import MAX_VALIDATORS

BLOCK_TXS_MAX = 10_000
BLOCK_TX_BYTES_MAX = 4 << 20
"""Bytes of all transactions in a block, with `TX_OVERHEAD_BYTES` for each."""
TX_OVERHEAD_BYTES = 8
"""A transaction in a block has a tag and its length before it, at most so much."""
EVIDENCE_MAX_BYTES = 1_048_576
"""CometBFT v0.38's default of evidence.max_bytes. Evidence of an attack on light clients by the largest validator set
has some 140 kB.
"""
_BLOCK_OVERHEAD_BYTES, _HEADER_MAX_BYTES = 11, 626
_COMMIT_OVERHEAD_BYTES, _COMMIT_SIG_BYTES = 94, 109 + 2
"""CometBFT v0.38's own bounds (types/block.go); 2 are the tag and length of a signature in the list."""


def commit_max_bytes(validators: int) -> int:
    """Most bytes of a commit of so many validators, as CometBFT's MaxCommitBytes."""
    return _COMMIT_OVERHEAD_BYTES + _COMMIT_SIG_BYTES * validators


BLOCK_MAX_BYTES = (
    BLOCK_TX_BYTES_MAX
    + EVIDENCE_MAX_BYTES
    + _BLOCK_OVERHEAD_BYTES
    + _HEADER_MAX_BYTES
    + commit_max_bytes(MAX_VALIDATORS)
)
"""block.max_bytes of new chains: a block that is full of everything at once fits, and no larger one."""
BLOCK_MAX_BYTES_DEFAULT = 22_020_096
"""CometBFT v0.38's default of block.max_bytes, and that of chains whose genesis names none."""
BLOCK_MAX_BYTES_LIMIT = 104_857_600
"""The largest block that CometBFT v0.38 knows (MaxBlockSizeBytes)."""
UNLIMITED_GAS = -1


@dataclass(frozen=True, slots=True)
class HashedParams:
    """The two parameters that consensus_hash covers."""

    block_max_bytes: int = BLOCK_MAX_BYTES_DEFAULT
    block_max_gas: int = UNLIMITED_GAS

    def hash(self) -> bytes:
        """Return consensus_hash: sha256(HashedParams{block_max_bytes=1, block_max_gas=2}); no Merkle tree."""
        return sha256(varint_field(1, self.block_max_bytes) + varint_field(2, self.block_max_gas)).digest()


@dataclass(frozen=True, slots=True)
class ConsensusParams:
    """All consensus parameters, as the RPC shows them."""

    block: HashedParams = HashedParams()
    evidence_max_age_blocks: int = 100_000
    evidence_max_age_ns: int = 172_800_000_000_000
    """48 hours."""
    evidence_max_bytes: int = EVIDENCE_MAX_BYTES
    app_version: int = 0

    def hash(self) -> bytes:
        """Return consensus_hash."""
        return self.block.hash()

    def to_json(self) -> dict[str, object]:
        """Return `consensus_params` as CometBFT's RPC shows them."""
        return {
            "block": {"max_bytes": str(self.block.block_max_bytes), "max_gas": str(self.block.block_max_gas)},
            "evidence": {
                "max_age_num_blocks": str(self.evidence_max_age_blocks),
                "max_age_duration": str(self.evidence_max_age_ns),
                "max_bytes": str(self.evidence_max_bytes),
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(self.app_version)},
            "abci": {"vote_extensions_enable_height": "0"},
        }
