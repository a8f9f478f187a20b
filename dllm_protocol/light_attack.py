"""Evidence that validators tried to deceive a light client (CometBFT v0.38, types/evidence.go).

Three kinds of attack, told apart by the header that is held to be true:

lunatic       the conflicting header could not follow from the state: validators, next validators, consensus, app or
              last results hash differ
equivocation  it could, and both headers were signed in the same round: whoever signed both is guilty
amnesia       it could, and the rounds differ: nobody can be named from the two commits alone
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from dllm_protocol.block_errors import InvalidBlock, require_equal
from dllm_protocol.comet_wire import BYTES, INT64_MAX, VARINT, message_field, read_fields, varint_field
from dllm_protocol.commit import BlockIDFlag
from dllm_protocol.header import Header
from dllm_protocol.light_block import LightBlock, SignedHeader
from dllm_protocol.protobuf import uvarint
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet

_ATTACK_SHAPE = {1: BYTES, 2: VARINT, 3: BYTES, 4: VARINT, 5: BYTES}
_HASHED_HEADER_BYTES = 31


class AttackKind(StrEnum):
    """How the validators tried it."""

    LUNATIC = "lunatic"
    EQUIVOCATION = "equivocation"
    AMNESIA = "amnesia"


@dataclass(frozen=True, slots=True)
class ConflictingBlock:
    """The header that somebody was shown, and the validators that it names."""

    signed_header: SignedHeader
    validators: ValidatorSet

    @property
    def header(self) -> Header:
        """The header inside."""
        return self.signed_header.header

    @property
    def height(self) -> int:
        """The header's height."""
        return self.signed_header.header.height

    def encode(self) -> bytes:
        """Return LightBlock{signed_header=1, validator_set=2}."""
        return message_field(1, self.signed_header.encode()) + message_field(2, self.validators.encode())

    @classmethod
    def decode(cls, data: bytes) -> ConflictingBlock:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("LightBlock", data, {1: BYTES, 2: BYTES})
        return cls(SignedHeader.decode(fields.required(1)), ValidatorSet.decode(fields.required(2)))

    def validate_basic(self, chain_id: str) -> None:
        """Check header, commit and validators, and that they belong together; raises InvalidBlock."""
        self.signed_header.validate_basic(chain_id)
        require_equal("header validators_hash", self.header.validators_hash, self.validators.hash())


@dataclass(frozen=True, slots=True)
class LightClientAttackEvidence:
    """A signed header that conflicts with the chain, and whom that proves guilty."""

    conflicting_block: ConflictingBlock
    common_height: int
    """Lunatic: the last height where both sides agree; else the height of the conflict."""
    byzantine_validators: tuple[Validator, ...]
    """By falling power, then rising address; empty for amnesia."""
    total_voting_power: int
    """Power of the whole set at the common height."""
    timestamp: Timestamp
    """Time of the block at the common height."""

    @property
    def height(self) -> int:
        """The height that the evidence is about: the common one."""
        return self.common_height

    def encode(self) -> bytes:
        """Return LightClientAttackEvidence{conflicting_block=1, common_height=2, byzantine_validators=3,
        total_voting_power=4, timestamp=5}."""
        return (
            message_field(1, self.conflicting_block.encode())
            + varint_field(2, self.common_height)
            + b"".join(message_field(3, one.encode()) for one in self.byzantine_validators)
            + varint_field(4, self.total_voting_power)
            + message_field(5, self.timestamp.encode())
        )

    @classmethod
    def decode(cls, data: bytes) -> LightClientAttackEvidence:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("LightClientAttackEvidence", data, _ATTACK_SHAPE, frozenset({3}))
        return cls(
            ConflictingBlock.decode(fields.required(1)),
            fields.signed(2),
            tuple(Validator.decode(one) for one in fields.repeated(3)),
            fields.signed(4),
            Timestamp.decode(fields.required(5)),
        )

    def hash(self) -> bytes:
        """Return the evidence's name: the same for every choice of signatures under one conflicting header.

        sha256(header hash ‖ zigzag varint of the common height), in which upstream overwrites the header hash's last
        byte with zero; nodes compare names, so the slip is part of the format.
        """
        zigzag = self.common_height << 1 if self.common_height >= 0 else (-self.common_height << 1) - 1
        header_hash = self.conflicting_block.header.hash()[:_HASHED_HEADER_BYTES]
        return sha256(header_hash.ljust(_HASHED_HEADER_BYTES + 1, b"\0") + uvarint(zigzag)).digest()

    def validate_basic(self) -> None:
        """Raise InvalidBlock when the parts do not fit each other; who is guilty is judged elsewhere."""
        if self.total_voting_power <= 0:
            raise InvalidBlock(f"negative or zero total voting power ({self.total_voting_power})")
        if not 1 <= self.common_height <= INT64_MAX:
            raise InvalidBlock(f"negative or zero common height ({self.common_height})")
        if self.common_height > self.conflicting_block.height:
            raise InvalidBlock(
                "common height is ahead of the conflicting block height "
                f"({self.common_height} > {self.conflicting_block.height})"
            )
        try:
            self.conflicting_block.validate_basic(self.conflicting_block.header.chain_id)
        except InvalidBlock as error:
            raise InvalidBlock(f"invalid conflicting light block: {error.message}") from error


def is_lunatic(conflicting: Header, trusted: Header) -> bool:
    """Whether a header has values that the state decides and that are not the trusted header's."""
    return (
        conflicting.validators_hash != trusted.validators_hash
        or conflicting.next_validators_hash != trusted.next_validators_hash
        or conflicting.consensus_hash != trusted.consensus_hash
        or conflicting.app_hash != trusted.app_hash
        or conflicting.last_results_hash != trusted.last_results_hash
    )


def attack_kind(conflicting: SignedHeader, trusted: SignedHeader) -> AttackKind:
    """Tell which attack a conflicting header is, seen from the trusted one."""
    if is_lunatic(conflicting.header, trusted.header):
        return AttackKind.LUNATIC
    if conflicting.commit.round == trusted.commit.round:
        return AttackKind.EQUIVOCATION
    return AttackKind.AMNESIA


def byzantine_validators(
    conflicting: ConflictingBlock, common_validators: ValidatorSet, trusted: SignedHeader
) -> tuple[Validator, ...]:
    """Name who is guilty, by falling power, then rising address.

    Args:
        conflicting: the block that was shown.
        common_validators: the set at the common height.
        trusted: the header that is held to be true, and its commit.

    Returns:
        Lunatic: members of the common set that signed the conflicting block. Equivocation: members of the conflicting
        set that signed both. Amnesia: nobody.
    """
    signatures = conflicting.signed_header.commit.signatures
    kind = attack_kind(conflicting.signed_header, trusted)
    if kind is AttackKind.AMNESIA:
        return ()
    if kind is AttackKind.LUNATIC:
        known = [
            common_validators.by_address(one.validator_address)
            for one in signatures
            if one.flag is BlockIDFlag.COMMIT
        ]
    else:
        # The sets are the same, so whoever stands at a position signed both.
        known = [
            conflicting.validators.by_address(one.validator_address)
            for one, other in zip(signatures, trusted.commit.signatures, strict=False)
            if one.flag is BlockIDFlag.COMMIT and other.flag is BlockIDFlag.COMMIT
        ]
    guilty = [one for one in known if one is not None]
    return tuple(sorted(guilty, key=lambda one: (-one.voting_power, one.address)))


def evidence_of_attack(
    conflicting: LightBlock, trusted: LightBlock, common: LightBlock
) -> LightClientAttackEvidence:
    """Write down an attack so that a full node of the trusted side can check it.

    Args:
        conflicting: the verified block of the side that is accused.
        trusted: the verified block of the other side at (or, where that chain is shorter, below) the same height.
        common: the last verified block that both sides share.
    """
    block = ConflictingBlock(conflicting.signed_header, conflicting.validators)
    base = common if is_lunatic(conflicting.header, trusted.header) else trusted
    return LightClientAttackEvidence(
        block,
        base.height,
        byzantine_validators(block, common.validators, trusted.signed_header),
        base.validators.total_power,
        base.header.time,
    )
