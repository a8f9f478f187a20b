"""Consensus parameters and the part of them that headers commit to (CometBFT v0.38, types/params.go)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from dllm_protocol.comet_wire import varint_field

BLOCK_MAX_BYTES_DEFAULT = 22_020_096
"""CometBFT v0.38's default of block.max_bytes."""
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
    evidence_max_bytes: int = 1_048_576
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
