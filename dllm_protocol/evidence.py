"""Evidence of misbehaviour as blocks carry it (CometBFT v0.38, types/evidence.go)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import BYTES, VARINT, bytes_field, message_field, read_fields, varint_field
from dllm_protocol.commit import INT32_MAX, SIGNATURE_BYTES_MAX, BlockID, vote_sign_bytes
from dllm_protocol.light_attack import LightClientAttackEvidence
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ADDRESS_BYTES

_VOTE_SHAPE = {
    1: VARINT,
    2: VARINT,
    3: VARINT,
    4: BYTES,
    5: BYTES,
    6: BYTES,
    7: VARINT,
    8: BYTES,
    9: BYTES,
    10: BYTES,
}
_DUPLICATE_SHAPE = {1: BYTES, 2: BYTES, 3: VARINT, 4: VARINT, 5: BYTES}
_DUPLICATE_FIELD = 1
_LIGHT_ATTACK_FIELD = 2


@dataclass(frozen=True, slots=True)
class Vote:
    """One signed vote."""

    type: int
    height: int
    round: int
    block_id: BlockID
    timestamp: Timestamp
    validator_address: bytes
    validator_index: int
    signature: bytes
    extension: bytes = b""
    extension_signature: bytes = b""

    def encode(self) -> bytes:
        """Return Vote{type=1 … extension_signature=10}; block_id and timestamp are always written."""
        return (
            varint_field(1, self.type)
            + varint_field(2, self.height)
            + varint_field(3, self.round)
            + message_field(4, self.block_id.encode())
            + message_field(5, self.timestamp.encode())
            + bytes_field(6, self.validator_address)
            + varint_field(7, self.validator_index)
            + bytes_field(8, self.signature)
            + bytes_field(9, self.extension)
            + bytes_field(10, self.extension_signature)
        )

    @classmethod
    def decode(cls, data: bytes) -> Vote:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("Vote", data, _VOTE_SHAPE)
        return cls(
            fields.unsigned(1, INT32_MAX),
            fields.signed(2),
            fields.signed(3, INT32_MAX),
            BlockID.decode(fields.required(4)),
            Timestamp.decode(fields.required(5)),
            fields.octets(6),
            fields.signed(7, INT32_MAX),
            fields.octets(8),
            fields.octets(9),
            fields.octets(10),
        )

    def sign_bytes(self, chain_id: str) -> bytes:
        """Return what the validator signed."""
        return vote_sign_bytes(chain_id, self.type, self.height, self.round, self.block_id, self.timestamp)

    def validate_basic(self) -> None:
        """Raise InvalidBlock when a field is out of its range."""
        if self.type not in (1, 2):
            raise InvalidBlock(f"vote type {self.type} is neither prevote 1 nor precommit 2")
        if self.height < 1 or self.round < 0 or self.validator_index < 0:
            raise InvalidBlock(
                f"vote at height {self.height}, round {self.round}, index {self.validator_index}"
            )
        self.block_id.validate_basic()
        if len(self.validator_address) != ADDRESS_BYTES:
            raise InvalidBlock(f"voter address has {len(self.validator_address)} bytes, not {ADDRESS_BYTES}")
        if not 1 <= len(self.signature) <= SIGNATURE_BYTES_MAX:
            raise InvalidBlock(
                f"vote signature has {len(self.signature)} bytes, not 1 to {SIGNATURE_BYTES_MAX}"
            )


@dataclass(frozen=True, slots=True)
class DuplicateVoteEvidence:
    """Two votes of one validator for different blocks at one height and round, in order of block id."""

    vote_a: Vote
    vote_b: Vote
    total_voting_power: int
    validator_power: int
    timestamp: Timestamp
    """Time of the block at the votes' height."""

    @property
    def height(self) -> int:
        """The height that the evidence is about: the votes'."""
        return self.vote_a.height

    def encode(self) -> bytes:
        """Return DuplicateVoteEvidence{vote_a=1, vote_b=2, total_voting_power=3, validator_power=4,
        timestamp=5}."""
        return (
            message_field(1, self.vote_a.encode())
            + message_field(2, self.vote_b.encode())
            + varint_field(3, self.total_voting_power)
            + varint_field(4, self.validator_power)
            + message_field(5, self.timestamp.encode())
        )

    @classmethod
    def decode(cls, data: bytes) -> DuplicateVoteEvidence:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("DuplicateVoteEvidence", data, _DUPLICATE_SHAPE)
        return cls(
            Vote.decode(fields.required(1)),
            Vote.decode(fields.required(2)),
            fields.signed(3),
            fields.signed(4),
            Timestamp.decode(fields.required(5)),
        )

    def hash(self) -> bytes:
        """Return the evidence's own hash: sha256 of its bytes."""
        return sha256(self.encode()).digest()

    def validate_basic(self) -> None:
        """Raise InvalidBlock when the votes are unsound or not in the order of their block ids."""
        self.vote_a.validate_basic()
        self.vote_b.validate_basic()
        if _order(self.vote_a.block_id) >= _order(self.vote_b.block_id):
            raise InvalidBlock(
                "duplicate votes are not in rising order of block id: "
                f"{self.vote_a.block_id.hash.hex()} then {self.vote_b.block_id.hash.hex()}"
            )


def _order(block_id: BlockID) -> bytes:
    """What duplicate votes are ordered by (BlockID.Key): the hash, then the encoded part set header."""
    return block_id.hash + block_id.part_set_header.encode()


Evidence: TypeAlias = DuplicateVoteEvidence | LightClientAttackEvidence
"""Every kind of evidence that a block may carry."""


def encode_evidence(evidence: Evidence) -> bytes:
    """Return the Evidence oneof of a block's evidence list."""
    kind = _DUPLICATE_FIELD if isinstance(evidence, DuplicateVoteEvidence) else _LIGHT_ATTACK_FIELD
    return message_field(kind, evidence.encode())


def decode_evidence(data: bytes) -> Evidence:
    """Read one element of a block's evidence list; raises MalformedBlock."""
    fields = read_fields("Evidence", data, {_DUPLICATE_FIELD: BYTES, _LIGHT_ATTACK_FIELD: BYTES})
    if len(fields.values) != 1:
        raise MalformedBlock(f"Evidence: kinds {sorted(fields.values)} instead of one kind, 1 or 2")
    if _DUPLICATE_FIELD in fields.values:
        return DuplicateVoteEvidence.decode(fields.required(_DUPLICATE_FIELD))
    return LightClientAttackEvidence.decode(fields.required(_LIGHT_ATTACK_FIELD))


def evidence_hash(evidence: Sequence[Evidence]) -> bytes:
    """Return the header's evidence_hash: Merkle root over bare evidence bytes; sha256("") without any."""
    return merkle.root([one.encode() for one in evidence])
