"""What ABCI requests and responses share (proto/tendermint/abci/types.proto of CometBFT v0.38)."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.comet_wire import BYTES, VARINT, bytes_field, message_field, read_fields, varint_field
from dllm_protocol.consensus_params import ConsensusParams, HashedParams
from dllm_protocol.timestamp import Timestamp
from full_node.state.snapshots import Snapshot

UINT32_MAX = (1 << 32) - 1
INT32_MAX = (1 << 31) - 1
NS_PER_SECOND = 1_000_000_000
_COMMIT_INFO = {1: VARINT, 2: BYTES}


@dataclass(frozen=True, slots=True)
class ValidatorPower:
    """A validator by its Ed25519 key, with the power that it shall have; 0 removes it."""

    public_key: bytes
    power: int

    def encode(self) -> bytes:
        """ValidatorUpdate{pub_key=1 PublicKey{ed25519=1}, power=2}."""
        return message_field(1, bytes_field(1, self.public_key)) + varint_field(2, self.power)

    @classmethod
    def decode(cls, data: bytes) -> ValidatorPower:
        """Reads a ValidatorUpdate. Raises MalformedBlock, also for keys that are not Ed25519."""
        fields = read_fields("ValidatorUpdate", data, {1: BYTES, 2: VARINT})
        key = read_fields("PublicKey", fields.required(1), {1: BYTES})
        return cls(key.required(1), fields.signed(2))


@dataclass(frozen=True, slots=True)
class Vote:
    """How one validator took part in the last block.

    Attributes:
        address: 20 bytes.
        power: voting power.
        flag: BlockIDFlag: 1 absent, 2 for the block, 3 for nil.
    """

    address: bytes
    power: int
    flag: int


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """Who signed the last block, and in which round."""

    round: int = 0
    votes: tuple[Vote, ...] = ()

    @classmethod
    def decode(cls, data: bytes) -> CommitInfo:
        """Reads a CommitInfo. Raises MalformedBlock."""
        fields = read_fields("CommitInfo", data, _COMMIT_INFO, frozenset({2}))
        return cls(fields.signed(1, INT32_MAX), tuple(_vote(one) for one in fields.repeated(2)))

    @classmethod
    def decode_extended(cls, data: bytes) -> CommitInfo:
        """Reads an ExtendedCommitInfo; vote extensions, which this chain does not use, are left out.

        Raises:
            MalformedBlock
        """
        fields = read_fields("ExtendedCommitInfo", data, _COMMIT_INFO, frozenset({2}))
        return cls(fields.signed(1, INT32_MAX), tuple(_extended_vote(one) for one in fields.repeated(2)))


@dataclass(frozen=True, slots=True)
class Offence:
    """Misbehaviour that stands proved in a block.

    Attributes:
        kind: 1 duplicate vote, 2 light client attack.
        address: the validator's, 20 bytes.
        power: its voting power then.
        height: when.
        time: block time then.
        total_power: of the whole set then.
    """

    kind: int
    address: bytes
    power: int
    height: int
    time: Timestamp
    total_power: int

    @classmethod
    def decode(cls, data: bytes) -> Offence:
        """Reads a Misbehavior. Raises MalformedBlock."""
        fields = read_fields("Misbehavior", data, {1: VARINT, 2: BYTES, 3: VARINT, 4: BYTES, 5: VARINT})
        address, power = _validator(fields.required(2))
        return cls(
            kind=fields.unsigned(1, UINT32_MAX),
            address=address,
            power=power,
            height=fields.signed(3),
            time=Timestamp.decode(fields.required(4)),
            total_power=fields.signed(5),
        )


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Snapshot{height=1, format=2, chunks=3, hash=4, metadata=5}."""
    return (
        varint_field(1, snapshot.height)
        + varint_field(2, snapshot.format)
        + varint_field(3, snapshot.chunks)
        + bytes_field(4, snapshot.hash)
        + bytes_field(5, snapshot.metadata)
    )


def decode_snapshot(data: bytes) -> Snapshot:
    """Reads a Snapshot. Raises MalformedBlock."""
    shape = {1: VARINT, 2: VARINT, 3: VARINT, 4: BYTES, 5: BYTES}
    fields = read_fields("Snapshot", data, shape)
    return Snapshot(
        fields.unsigned(1),
        fields.unsigned(2, UINT32_MAX),
        fields.unsigned(3, UINT32_MAX),
        fields.octets(4),
        fields.octets(5),
    )


def decode_consensus_params(data: bytes) -> ConsensusParams:
    """Reads tendermint.types.ConsensusParams. Raises MalformedBlock."""
    fields = read_fields("ConsensusParams", data, dict.fromkeys((1, 2, 3, 4, 5), BYTES))
    block = read_fields("BlockParams", fields.message(1), {1: VARINT, 2: VARINT})
    evidence = read_fields("EvidenceParams", fields.message(2), {1: VARINT, 2: BYTES, 3: VARINT})
    age = read_fields("Duration", evidence.message(2), {1: VARINT, 2: VARINT})
    version = read_fields("VersionParams", fields.message(4), {1: VARINT})
    return ConsensusParams(
        block=HashedParams(block.signed(1), block.signed(2)),
        evidence_max_age_blocks=evidence.signed(1),
        evidence_max_age_ns=age.signed(1) * NS_PER_SECOND + age.signed(2, INT32_MAX),
        evidence_max_bytes=evidence.signed(3),
        app_version=version.unsigned(1),
    )


def _validator(data: bytes) -> tuple[bytes, int]:
    fields = read_fields("Validator", data, {1: BYTES, 3: VARINT})
    return fields.octets(1), fields.signed(3)


def _vote(data: bytes) -> Vote:
    fields = read_fields("VoteInfo", data, {1: BYTES, 3: VARINT})
    return Vote(*_validator(fields.required(1)), fields.unsigned(3, UINT32_MAX))


def _extended_vote(data: bytes) -> Vote:
    fields = read_fields("ExtendedVoteInfo", data, {1: BYTES, 3: BYTES, 4: BYTES, 5: VARINT})
    return Vote(*_validator(fields.required(1)), fields.unsigned(5, UINT32_MAX))
