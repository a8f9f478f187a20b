"""Validators: order, hash and rotation of proposers, as CometBFT v0.38 (types/validator_set.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import (
    BYTES,
    INT64_MAX,
    INT64_MIN,
    VARINT,
    bytes_field,
    message_field,
    read_fields,
    varint_field,
)

ADDRESS_BYTES = 20
PUBLIC_KEY_BYTES = 32
TOTAL_POWER_MAX = INT64_MAX // 8
"""Bound on the sum of voting power (MaxTotalVotingPower)."""
VALIDATORS_MAX = 10_000
"""CometBFT's bound on the size of a set (MaxVotesCount)."""
_PRIORITY_WINDOW = 2


def address_of(public_key: bytes) -> bytes:
    """Return the address of an ed25519 public key: sha256(key)[:20]."""
    return sha256(public_key).digest()[:ADDRESS_BYTES]


@dataclass(frozen=True, slots=True)
class Validator:
    """One validator at one height."""

    public_key: bytes
    """Ed25519, 32 bytes."""
    voting_power: int
    """Units of power, ≥ 1 inside a set; 0 in an update means removal."""
    proposer_priority: int = 0
    """Place in the rotation of proposers; not hashed."""
    address: bytes = field(init=False, repr=False, compare=False)
    """sha256(public_key)[:20]."""

    def __post_init__(self) -> None:
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise InvalidBlock(f"validator key has {len(self.public_key)} bytes, not {PUBLIC_KEY_BYTES}")
        if not 0 <= self.voting_power <= TOTAL_POWER_MAX:
            raise InvalidBlock(f"voting power {self.voting_power} outside 0 … {TOTAL_POWER_MAX}")
        object.__setattr__(self, "address", address_of(self.public_key))

    def encode_simple(self) -> bytes:
        """Return SimpleValidator{pub_key=1 PublicKey{ed25519=1}, voting_power=2}: what the hash covers."""
        public_key = message_field(1, self.public_key)
        return message_field(1, public_key) + varint_field(2, self.voting_power)

    def encode(self) -> bytes:
        """Return Validator{address=1, pub_key=2, voting_power=3, proposer_priority=4}, as in light blocks."""
        public_key = message_field(1, self.public_key)
        return (
            bytes_field(1, self.address)
            + message_field(2, public_key)
            + varint_field(3, self.voting_power)
            + varint_field(4, self.proposer_priority)
        )

    @classmethod
    def decode(cls, data: bytes) -> Validator:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("Validator", data, {1: BYTES, 2: BYTES, 3: VARINT, 4: VARINT})
        public_key = read_fields("PublicKey", fields.required(2), {1: BYTES}).octets(1)
        try:
            one = cls(public_key, fields.unsigned(3, TOTAL_POWER_MAX), fields.signed(4))
        except InvalidBlock as error:
            raise MalformedBlock(error.message) from error
        if fields.octets(1) != one.address:
            raise MalformedBlock(f"validator address {fields.octets(1).hex()} is not that of its key")
        return one


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Validators sorted by power (falling), then by address (rising). An empty set can sign nothing."""

    validators: tuple[Validator, ...]
    proposer_address: bytes = field(default=b"", compare=False)
    """Who proposed after the last `incremented`; empty when that is not known."""
    total_power: int = field(init=False, compare=False, repr=False)
    """Sum of voting power, at most TOTAL_POWER_MAX."""
    _index: Mapping[bytes, int] = field(init=False, compare=False, repr=False)
    _hash: bytes = field(init=False, compare=False, repr=False, default=b"")

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.validators, key=lambda one: (-one.voting_power, one.address)))
        if len(ordered) > VALIDATORS_MAX:
            raise InvalidBlock(f"validator set has {len(ordered)} members, at most {VALIDATORS_MAX}")
        if ordered and ordered[-1].voting_power < 1:
            raise InvalidBlock(f"validator {ordered[-1].address.hex().upper()} has no voting power")
        total = sum(one.voting_power for one in ordered)
        if total > TOTAL_POWER_MAX:
            raise InvalidBlock(f"total voting power {total} is above {TOTAL_POWER_MAX}")
        index = {one.address: at for at, one in enumerate(ordered)}
        if len(index) != len(ordered):
            raise InvalidBlock(
                f"validator set names {len(ordered)} validators but only {len(index)} addresses"
            )
        object.__setattr__(self, "validators", ordered)
        object.__setattr__(self, "total_power", total)
        object.__setattr__(self, "_index", index)

    def __len__(self) -> int:
        return len(self.validators)

    def hash(self) -> bytes:
        """Return validators_hash: the Merkle root over SimpleValidator in the set's order."""
        if not self._hash:
            # Kept, because a client asks one set for it at every header; the members never change.
            object.__setattr__(self, "_hash", merkle.root([one.encode_simple() for one in self.validators]))
        return self._hash

    def index_of(self, address: bytes) -> int | None:
        """Return the position of an address, or None for a stranger."""
        return self._index.get(address)

    def by_address(self, address: bytes) -> Validator | None:
        """Return the validator with this address, or None for a stranger."""
        at = self._index.get(address)
        return None if at is None else self.validators[at]

    def encode(self) -> bytes:
        """Return ValidatorSet{validators=1, proposer=2, total_voting_power=3}; the total is 0, as in Go."""
        members = b"".join(message_field(1, one.encode()) for one in self.validators)
        return members + message_field(2, self.proposer.encode())

    @classmethod
    def decode(cls, data: bytes) -> ValidatorSet:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("ValidatorSet", data, {1: BYTES, 2: BYTES, 3: VARINT}, frozenset({1}))
        members = tuple(Validator.decode(one) for one in fields.repeated(1))
        try:
            return cls(members, Validator.decode(fields.required(2)).address)
        except InvalidBlock as error:
            raise MalformedBlock(error.message) from error

    @property
    def proposer(self) -> Validator:
        """Who proposes: the one the last rotation chose, else the one with the highest priority."""
        if not self.validators:
            raise InvalidBlock("an empty validator set has no proposer")
        known = self.by_address(self.proposer_address)
        return known if known is not None else _first_in_rotation(self.validators)

    @classmethod
    def listed(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """Return the set that a node lists with its priorities (ValidatorSetFromExistingValidators).

        Whoever proposed last paid the total for it, so it is the one that stands lowest.
        """
        found = cls(tuple(validators))
        if not found.validators:
            return found
        last = max(found.validators, key=lambda one: (-one.proposer_priority, one.address))
        return cls(found.validators, last.address)

    def priority_hash(self) -> bytes:
        """Return a hash of the priorities in the set's order, to compare what two nodes say of the rotation.

        CometBFT's ProposerPriorityHash differs between its versions and never leaves a process; this one need only
        equal itself.
        """
        written = b"".join(one.proposer_priority.to_bytes(8, "big", signed=True) for one in self.validators)
        return sha256(written).digest()

    @classmethod
    def genesis(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """Return the first set of a chain: priorities 0, rotated once (NewValidatorSet)."""
        return cls(tuple(replace(one, proposer_priority=0) for one in validators)).incremented(1)

    def incremented(self, times: int) -> ValidatorSet:
        """Return the set after `times` turns of the rotation (IncrementProposerPriority).

        Each turn every validator gains its power; whoever leads (ties: the smaller address) proposes
        and pays the total.
        """
        if times < 1:
            raise ValueError(f"a rotation takes at least one turn, not {times}")
        if not self.validators:
            raise InvalidBlock("an empty validator set has no proposer")
        members = _centred(_rescaled(self.validators, _PRIORITY_WINDOW * self.total_power))
        proposer = members[0]
        for _ in range(times):
            raised = [
                replace(one, proposer_priority=_clip(one.proposer_priority + one.voting_power))
                for one in members
            ]
            proposer = _first_in_rotation(raised)
            members = tuple(
                replace(one, proposer_priority=_clip(one.proposer_priority - self.total_power))
                if one.address == proposer.address
                else one
                for one in raised
            )
        return ValidatorSet(members, proposer.address)

    def with_updates(self, updates: Iterable[Validator]) -> ValidatorSet:
        """Return the set after validator updates (UpdateWithChangeSet); power 0 removes.

        Raises:
            InvalidBlock: duplicates, removal of a stranger, too much power, or nobody left.
        """
        changes = list(updates)
        if not changes:
            return self
        by_address = {one.address: one for one in changes}
        if len(by_address) != len(changes):
            raise InvalidBlock(f"{len(changes)} validator updates name only {len(by_address)} validators")
        kept = {one.address: one for one in self.validators}
        strangers = [a for a, one in by_address.items() if one.voting_power == 0 and a not in kept]
        if strangers:
            raise InvalidBlock(
                f"validator update removes {strangers[0].hex().upper()}, which is not in the set"
            )
        merged = kept | {a: one for a, one in by_address.items() if one.voting_power > 0}
        # A newcomer starts 1.125 totals behind, the total being taken before removals, so that leaving and
        # coming back gains nothing.
        total = sum(one.voting_power for one in merged.values())
        behind = -(total + (total >> 3))
        members = [
            replace(one, proposer_priority=kept[a].proposer_priority if a in kept else behind)
            for a, one in merged.items()
            if a not in by_address or by_address[a].voting_power > 0
        ]
        if not members:
            raise InvalidBlock(f"validator updates remove all {len(kept)} validators")
        changed = ValidatorSet(tuple(members))
        centred = _centred(_rescaled(changed.validators, _PRIORITY_WINDOW * changed.total_power))
        return ValidatorSet(centred, self.proposer_address)


def _clip(value: int) -> int:
    return max(INT64_MIN, min(INT64_MAX, value))


def _first_in_rotation(members: Iterable[Validator]) -> Validator:
    return min(members, key=lambda one: (-one.proposer_priority, one.address))


def _rescaled(members: tuple[Validator, ...], window: int) -> tuple[Validator, ...]:
    """Divide priorities (towards zero, as Go does) so that they span at most `window` (RescalePriorities)."""
    priorities = [one.proposer_priority for one in members]
    spread = min(max(priorities) - min(priorities), INT64_MAX)
    if spread <= window:
        return members
    ratio = (spread + window - 1) // window
    return tuple(
        replace(
            one,
            proposer_priority=abs(one.proposer_priority) // ratio * (1 if one.proposer_priority >= 0 else -1),
        )
        for one in members
    )


def _centred(members: tuple[Validator, ...]) -> tuple[Validator, ...]:
    """Shift priorities by their average, rounded down (shiftByAvgProposerPriority)."""
    average = sum(one.proposer_priority for one in members) // len(members)
    return tuple(replace(one, proposer_priority=_clip(one.proposer_priority - average)) for one in members)
