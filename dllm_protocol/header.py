"""Block headers: fields, hash, bytes (CometBFT v0.38, types/block.go)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock, require_equal
from dllm_protocol.comet_wire import (
    BYTES,
    UINT64_MAX,
    VARINT,
    bytes_field,
    message_field,
    read_fields,
    varint_field,
)
from dllm_protocol.commit import HASH_BYTES, BlockID
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ADDRESS_BYTES

BLOCK_VERSION = 11
"""Version of the block format that this code writes and accepts."""
CHAIN_ID_BYTES_MAX = 50


@dataclass(frozen=True, slots=True)
class Header:
    """What validators sign by its hash."""

    chain_id: str
    height: int
    time: Timestamp
    """BFT time: the median of last_commit's timestamps; genesis time at the first height."""
    last_block_id: BlockID
    """The block before; zero at the first height."""
    last_commit_hash: bytes
    data_hash: bytes
    """Merkle root over sha256 of each transaction."""
    validators_hash: bytes
    """The set that signs this height."""
    next_validators_hash: bytes
    """The set that signs the next height."""
    consensus_hash: bytes
    app_hash: bytes
    """Root of the state after the block before this one."""
    last_results_hash: bytes
    """Merkle root over the results of the block before this one."""
    evidence_hash: bytes
    proposer_address: bytes
    app_version: int = 0
    block_version: int = BLOCK_VERSION
    _hash: bytes = field(init=False, compare=False, repr=False, default=b"")

    def _version(self) -> bytes:
        return varint_field(1, self.block_version) + varint_field(2, self.app_version)

    def _hashes(self) -> tuple[bytes, ...]:
        return (
            self.last_commit_hash,
            self.data_hash,
            self.validators_hash,
            self.next_validators_hash,
            self.consensus_hash,
            self.app_hash,
            self.last_results_hash,
            self.evidence_hash,
        )

    def hash(self) -> bytes:
        """Return the header's hash: the Merkle root over its 14 fields, each in a google wrapper message.

        An empty value gives an empty leaf. The hash is empty while validators_hash is (CometBFT's nil hash).
        """
        if self._hash or not self.validators_hash:
            return self._hash
        leaves = [
            self._version(),
            bytes_field(1, self.chain_id.encode()),
            varint_field(1, self.height),
            self.time.encode(),
            self.last_block_id.encode(),
            *(bytes_field(1, value) for value in self._hashes()),
            bytes_field(1, self.proposer_address),
        ]
        # Kept, because a client compares a header first with its commit and then with the header after it.
        object.__setattr__(self, "_hash", merkle.root(leaves))
        return self._hash

    def encode(self) -> bytes:
        """Return Header{version=1, chain_id=2, height=3, time=4, last_block_id=5, hashes=6…13,
        proposer_address=14}."""
        return (
            message_field(1, self._version())
            + bytes_field(2, self.chain_id.encode())
            + varint_field(3, self.height)
            + message_field(4, self.time.encode())
            + message_field(5, self.last_block_id.encode())
            + b"".join(bytes_field(number, value) for number, value in enumerate(self._hashes(), start=6))
            + bytes_field(14, self.proposer_address)
        )

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read what `encode` wrote; raises MalformedBlock."""
        shape = dict.fromkeys(range(1, 15), BYTES) | {3: VARINT}
        fields = read_fields("Header", data, shape)
        version = read_fields("Consensus", fields.required(1), {1: VARINT, 2: VARINT})
        return cls(
            fields.text(2),
            fields.signed(3),
            Timestamp.decode(fields.required(4)),
            BlockID.decode(fields.required(5)),
            fields.octets(6),
            fields.octets(7),
            fields.octets(8),
            fields.octets(9),
            fields.octets(10),
            fields.octets(11),
            fields.octets(12),
            fields.octets(13),
            fields.octets(14),
            app_version=version.unsigned(2, UINT64_MAX),
            block_version=version.unsigned(1, UINT64_MAX),
        )

    def validate_basic(self) -> None:
        """Check what needs no other knowledge (Header.ValidateBasic).

        Raises:
            InvalidBlock: naming the field, its value and what was expected.
        """
        require_equal("header block version", self.block_version, BLOCK_VERSION)
        if len(self.chain_id.encode()) > CHAIN_ID_BYTES_MAX:
            raise InvalidBlock(
                f"chain id has {len(self.chain_id.encode())} bytes, at most {CHAIN_ID_BYTES_MAX}"
            )
        if self.height < 1:
            raise InvalidBlock(f"header height is {self.height}, not above 0")
        self.last_block_id.validate_basic()
        named = {
            "last_commit_hash": self.last_commit_hash,
            "data_hash": self.data_hash,
            "validators_hash": self.validators_hash,
            "next_validators_hash": self.next_validators_hash,
            "consensus_hash": self.consensus_hash,
            "last_results_hash": self.last_results_hash,
            "evidence_hash": self.evidence_hash,
        }
        for name, value in named.items():
            if len(value) not in (0, HASH_BYTES):
                raise InvalidBlock(f"{name} has {len(value)} bytes, neither 0 nor {HASH_BYTES}")
        if len(self.proposer_address) != ADDRESS_BYTES:
            raise InvalidBlock(
                f"proposer address has {len(self.proposer_address)} bytes, not {ADDRESS_BYTES}"
            )
