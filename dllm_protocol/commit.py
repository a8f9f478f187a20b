"""Commits: what validators sign, how a commit is written and hashed, the time it gives to the next block.

CometBFT v0.38: types/block.go (BlockID, CommitSig, Commit), types/canonical.go (sign bytes), MedianTime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import (
    BYTES,
    INT64_MAX,
    VARINT,
    bytes_field,
    delimited,
    message_field,
    read_fields,
    sfixed64_field,
    varint_field,
)
from dllm_protocol.timestamp import GO_ZERO_TIME, Timestamp
from dllm_protocol.validator_set import ADDRESS_BYTES, VALIDATORS_MAX, ValidatorSet

HASH_BYTES = 32
SIGNATURE_BYTES_MAX = 64
INT32_MAX = 2**31 - 1
UINT32_MAX = 2**32 - 1


class BlockIDFlag(IntEnum):
    """What a validator's entry in a commit says."""

    ABSENT = 1
    COMMIT = 2
    NIL = 3


class VoteType(IntEnum):
    """Which vote is signed; UNKNOWN is written as nothing."""

    UNKNOWN = 0
    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True, slots=True)
class PartSetHeader:
    """Number of parts of a block and their Merkle root."""

    total: int = 0
    hash: bytes = b""

    def encode(self) -> bytes:
        """Return PartSetHeader{total=1, hash=2}."""
        return varint_field(1, self.total) + bytes_field(2, self.hash)

    @classmethod
    def decode(cls, data: bytes) -> PartSetHeader:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("PartSetHeader", data, {1: VARINT, 2: BYTES})
        return cls(fields.unsigned(1, UINT32_MAX), fields.octets(2))


@dataclass(frozen=True, slots=True)
class BlockID:
    """A block by the hash of its header and by its parts; all zero means "no block"."""

    hash: bytes = b""
    part_set_header: PartSetHeader = PartSetHeader()

    @property
    def is_zero(self) -> bool:
        """Whether this names no block (a nil vote, the block before the first)."""
        return not self.hash and self.part_set_header == PartSetHeader()

    def encode(self) -> bytes:
        """Return BlockID{hash=1, part_set_header=2 always}; the canonical form is the same."""
        return bytes_field(1, self.hash) + message_field(2, self.part_set_header.encode())

    @classmethod
    def decode(cls, data: bytes) -> BlockID:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("BlockID", data, {1: BYTES, 2: BYTES})
        return cls(fields.octets(1), PartSetHeader.decode(fields.required(2)))

    def validate_basic(self) -> None:
        """Raise InvalidBlock when a hash is neither empty nor 32 bytes."""
        for name, value in (("block id hash", self.hash), ("part set hash", self.part_set_header.hash)):
            if len(value) not in (0, HASH_BYTES):
                raise InvalidBlock(f"{name} has {len(value)} bytes, neither 0 nor {HASH_BYTES}")


ZERO_BLOCK_ID = BlockID()


@dataclass(frozen=True, slots=True)
class CommitSig:
    """One validator's entry in a commit."""

    flag: BlockIDFlag
    validator_address: bytes
    """20 bytes; empty when absent."""
    timestamp: Timestamp
    """The moment that this validator signed; GO_ZERO_TIME when absent."""
    signature: bytes
    """1 to 64 bytes; empty when absent."""

    @classmethod
    def absent(cls) -> CommitSig:
        """Return the entry of a validator whose vote was not seen."""
        return cls(BlockIDFlag.ABSENT, b"", GO_ZERO_TIME, b"")

    def encode(self) -> bytes:
        """Return CommitSig{block_id_flag=1, validator_address=2, timestamp=3 always, signature=4}."""
        return (
            varint_field(1, self.flag)
            + bytes_field(2, self.validator_address)
            + message_field(3, self.timestamp.encode())
            + bytes_field(4, self.signature)
        )

    @classmethod
    def decode(cls, data: bytes) -> CommitSig:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("CommitSig", data, {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES})
        flag = fields.unsigned(1)
        if flag not in tuple(BlockIDFlag):
            raise MalformedBlock(f"CommitSig: block id flag {flag} is none of 1, 2, 3")
        return cls(
            BlockIDFlag(flag), fields.octets(2), Timestamp.decode(fields.required(3)), fields.octets(4)
        )

    def validate_basic(self) -> None:
        """Raise InvalidBlock when the fields do not fit the flag."""
        if self.flag is BlockIDFlag.ABSENT:
            if self.validator_address or self.signature or self.timestamp != GO_ZERO_TIME:
                raise InvalidBlock(f"absent signature carries data: {self}")
            return
        if len(self.validator_address) != ADDRESS_BYTES:
            raise InvalidBlock(f"signer address has {len(self.validator_address)} bytes, not {ADDRESS_BYTES}")
        if not 1 <= len(self.signature) <= SIGNATURE_BYTES_MAX:
            raise InvalidBlock(f"signature has {len(self.signature)} bytes, not 1 to {SIGNATURE_BYTES_MAX}")


@dataclass(frozen=True, slots=True)
class Commit:
    """Signatures of more than two thirds of the power over one block, in the order of the validator set."""

    height: int
    round: int
    block_id: BlockID
    signatures: tuple[CommitSig, ...]

    @classmethod
    def empty(cls) -> Commit:
        """Return the last_commit of a chain's first block."""
        return cls(0, 0, ZERO_BLOCK_ID, ())

    def hash(self) -> bytes:
        """Return last_commit_hash: covers the signatures alone, not height, round or block id."""
        return merkle.root([one.encode() for one in self.signatures])

    def encode(self) -> bytes:
        """Return Commit{height=1, round=2, block_id=3 always, signatures=4}."""
        return (
            varint_field(1, self.height)
            + varint_field(2, self.round)
            + message_field(3, self.block_id.encode())
            + b"".join(message_field(4, one.encode()) for one in self.signatures)
        )

    @classmethod
    def decode(cls, data: bytes) -> Commit:
        """Read what `encode` wrote; raises MalformedBlock."""
        shape = {1: VARINT, 2: VARINT, 3: BYTES, 4: BYTES}
        fields = read_fields("Commit", data, shape, frozenset({4}))
        signatures = fields.repeated(4)
        if len(signatures) > VALIDATORS_MAX:
            raise MalformedBlock(f"Commit: {len(signatures)} signatures, at most {VALIDATORS_MAX}")
        return cls(
            fields.signed(1),
            fields.signed(2, INT32_MAX),
            BlockID.decode(fields.required(3)),
            tuple(CommitSig.decode(one) for one in signatures),
        )

    def validate_basic(self) -> None:
        """Raise InvalidBlock when the commit breaks a rule that needs no validator set."""
        if self.height < 0 or self.round < 0:
            raise InvalidBlock(f"commit has height {self.height} and round {self.round}")
        if self.height == 0:
            return
        if self.block_id.is_zero:
            raise InvalidBlock(f"commit of height {self.height} is for no block")
        self.block_id.validate_basic()
        if not self.signatures:
            raise InvalidBlock(f"commit of height {self.height} has no signatures")
        for one in self.signatures:
            one.validate_basic()

    def sign_bytes(self, chain_id: str, index: int) -> bytes:
        """Return what the validator at `index` signed: its own timestamp, and no block when it voted nil."""
        one = self.signatures[index]
        voted = self.block_id if one.flag is BlockIDFlag.COMMIT else ZERO_BLOCK_ID
        return vote_sign_bytes(chain_id, VoteType.PRECOMMIT, self.height, self.round, voted, one.timestamp)

    def block_votes(self, chain_id: str) -> Callable[[Timestamp], bytes]:
        """Return what gives the sign bytes of votes for the block, by the timestamp of each."""
        return votes_at(chain_id, VoteType.PRECOMMIT, self.height, self.round, self.block_id)


def vote_sign_bytes(
    chain_id: str, vote_type: int, height: int, round_: int, block_id: BlockID, timestamp: Timestamp
) -> bytes:
    """Return the bytes of a vote that a validator signs, length prefix included."""
    return votes_at(chain_id, vote_type, height, round_, block_id)(timestamp)


def votes_at(
    chain_id: str, vote_type: int, height: int, round_: int, block_id: BlockID
) -> Callable[[Timestamp], bytes]:
    """Return what gives the sign bytes of equal votes by their timestamps, in which alone they differ.

    CanonicalVote{type=1, height=2 sfixed64, round=3 sfixed64, block_id=4 unless zero, timestamp=5 always,
    chain_id=6}.
    """
    if not -INT64_MAX <= height <= INT64_MAX:
        raise InvalidBlock(f"vote height {height} does not fit 64 bits")
    block = b"" if block_id.is_zero else message_field(4, block_id.encode())
    before = varint_field(1, vote_type) + sfixed64_field(2, height) + sfixed64_field(3, round_) + block
    after = bytes_field(6, chain_id.encode())
    return lambda timestamp: delimited(before + message_field(5, timestamp.encode()) + after)


def median_time(commit: Commit, validators: ValidatorSet) -> Timestamp:
    """Return BFT time: the median of a commit's timestamps weighted by power.

    v0.38's rule: votes for nil count, absent ones do not.

    Raises:
        InvalidBlock: a signer is not in the set, or nobody signed.
    """
    weighted = []
    for one in commit.signatures:
        if one.flag is BlockIDFlag.ABSENT:
            continue
        signer = validators.by_address(one.validator_address)
        if signer is None:
            raise InvalidBlock(
                f"commit signer {one.validator_address.hex().upper()} is not in the validator set"
            )
        weighted.append((one.timestamp, signer.voting_power))
    median = sum(power for _, power in weighted) // 2
    for moment, power in sorted(weighted):
        if median <= power:
            return moment
        median -= power
    raise InvalidBlock(f"commit of height {commit.height} has no signature to take the time from")
