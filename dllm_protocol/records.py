"""What the chain remembers: one record a provable path (`dllm_protocol.state_keys`) [format].

No record holds a height or a time that would change by itself; deadlines are written when something happens.
Times are block times in milliseconds since 1970 (UTC). A record that encodes to nothing (all fields default) is
not stored: absence stands for an empty account, pool or set.
"""

from __future__ import annotations

from dllm_protocol.actions.holders import SPEED
from dllm_protocol.actions.providers import ENDPOINT, REGION
from dllm_protocol.encoding import (
    ADDRESS,
    BOOL,
    HASH,
    NAME,
    OPTIONAL_HASH,
    PUBLIC_KEY,
    U32,
    U64,
    UDLLM,
    ListOf,
    Nested,
    Optional,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.encoding import PPM as SHARE
from dllm_protocol.model_manifest import MAX_LAYERS, Manifest
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices
from dllm_protocol.staking import MAX_CANDIDATES, MAX_VALIDATORS
from dllm_protocol.voucher import CHAIN_ID, VoucherLeg

SESSION_OPEN, SESSION_CLOSING, SESSION_CLOSED = 1, 2, 3
MODEL_PROPOSED, MODEL_ACTIVE, MODEL_DEPRECATED, MODEL_RETIRED = 1, 2, 3, 4
MAX_UNBONDING = 16
MAX_RETIRED_KEYS = 8
MAX_STAGES = 64
MAX_OFFERS = 1 << 16


@record
class Chain(Record):
    """What a chain is called and when its epochs began to count."""

    chain_id: str = wire(1, CHAIN_ID)
    genesis_time_ms: int = wire(2, U64)
    address_prefix: str = wire(3, Text(16, minimum=1))


@record
class AppVersion(Record):
    """Which rules made the state; absent where no upgrade ever changed them."""

    version: int = wire(1, U32)


@record
class Account(Record):
    """Spendable tokens and the next sequence."""

    balance_udllm: int = wire(1, UDLLM)
    sequence: int = wire(2, U64)


@record
class ChatKey(Record):
    """A second key of an account that may open, top up and close sessions."""

    public_key: bytes = wire(1, PUBLIC_KEY)
    remaining_udllm: int = wire(2, UDLLM)


@record
class Unbonding(Record):
    """Bond on its way back, slashable until then."""

    amount_udllm: int = wire(1, UDLLM)
    release_time_ms: int = wire(2, U64)


@record
class RetiredKey(Record):
    """A service key of a provider's that it rotated away; what it signed still counts against the bond."""

    service_key: bytes = wire(1, PUBLIC_KEY)
    until_ms: int = wire(2, U64)
    """Block time up to which it does."""


@record
class Provider(Record):
    """An owner's registered identity."""

    owner: bytes = wire(1, ADDRESS)
    operator: bytes = wire(2, ADDRESS)
    service_key: bytes = wire(3, PUBLIC_KEY)
    sealing_key: bytes = wire(4, PUBLIC_KEY)
    endpoints: tuple[str, ...] = wire(5, ListOf(ENDPOINT, 8, minimum=1))
    region: str = wire(6, REGION)
    bond_udllm: int = wire(7, UDLLM)
    unbonding: tuple[Unbonding, ...] = wire(8, ListOf(Nested(Unbonding), MAX_UNBONDING))
    alive_epoch: int = wire(9, U64)
    """Epoch of the last heartbeat, offer or registration."""
    jailed: int = wire(10, BOOL)
    """1 after a slash took the bond below the minimum: offers no longer enter a book."""
    retired: tuple[RetiredKey, ...] = wire(11, ListOf(Nested(RetiredKey), MAX_RETIRED_KEYS))
    """Oldest first."""


@record
class Offer(Record):
    """A provider's standing offer for a model."""

    provider: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)
    first_layer: int = wire(3, Unsigned(MAX_LAYERS))
    end_layer: int = wire(4, Unsigned(MAX_LAYERS))
    prices: RowPrices = wire(5, Nested(RowPrices))
    """For a row through all layers of the slice."""
    capacity_sessions: int = wire(6, U32)
    open_sessions: int = wire(7, U32)
    """Routes that it stands in now, as stage or as standby."""


@record
class Holding(Record):
    """What a provider says of itself for a model's placement."""

    provider: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)
    speed_layer_rows_s: int = wire(3, SPEED)
    """Rows a second through one layer."""
    memory_layers: int = wire(4, Unsigned(MAX_LAYERS))
    """The most layers that it can hold."""
    first_layer: int = wire(5, Unsigned(MAX_LAYERS))
    end_layer: int = wire(6, Unsigned(MAX_LAYERS))
    """Where it serves, or will once it has loaded; 0 and 0 while it waits."""
    since_epoch: int = wire(7, U64)
    """When it first named this slice."""


@record
class ModelRecord(Record):
    """A registered model."""

    owner: bytes = wire(1, ADDRESS)
    manifest: Manifest = wire(2, Nested(Manifest))
    bond_udllm: int = wire(3, UDLLM)
    status: int = wire(4, Unsigned(MODEL_RETIRED, minimum=1))


@record
class ModelSet(Record):
    """Names of all models, ascending; the one provable record of the set."""

    names: tuple[str, ...] = wire(1, ListOf(NAME, 4096))


@record
class ProviderSet(Record):
    """Ids of providers, ascending: those with a live offer for a model."""

    providers: tuple[bytes, ...] = wire(1, ListOf(ADDRESS, MAX_OFFERS))


@record
class OfferBookHead(Record):
    """The proved record of a frozen book, and of the holder book beside it."""

    model: str = wire(1, NAME)
    epoch: int = wire(2, U64)
    book_hash: bytes = wire(3, HASH)
    offers: int = wire(4, U32)
    stale: int = wire(5, BOOL)
    """1 once live offers changed after the freeze."""
    previous_epoch: int = wire(6, U64)
    """Epoch of the book before; its list is still served."""
    holders_hash: bytes = wire(7, HASH)
    """Of the holder book, which is frozen with it."""
    holders: int = wire(8, U32)
    """How many it lists: whoever offers, and whoever loads or waits."""

    @property
    def listed(self) -> int:
        """How many the longer of the two lists names: what actions that work through them are weighed by."""
        return max(self.offers, self.holders)


@record
class RouteStage(Record):
    """One position of a route."""

    stage: BookEntry = wire(1, Nested(BookEntry))
    standby: BookEntry | None = wire(2, Optional(BookEntry))
    """Of another owner, covering the same layers; None when the book has none."""


@record
class ProviderLoad(Record):
    """How many sessions a provider's offer carried when a route was made."""

    provider: bytes = wire(1, ADDRESS)
    open_sessions: int = wire(2, U32)


@record
class Route(Record):
    """Who serves a session, with everything needed to compute it again."""

    session: bytes = wire(1, HASH)
    model: str = wire(2, NAME)
    manifest_hash: bytes = wire(3, HASH)
    book_epoch: int = wire(4, U64)
    book_hash: bytes = wire(5, HASH)
    seed: bytes = wire(6, HASH)
    loads: tuple[ProviderLoad, ...] = wire(7, ListOf(Nested(ProviderLoad), MAX_OFFERS))
    """Offers that were passed over because they were full, with what they carried; ascending by provider."""
    stages: tuple[RouteStage, ...] = wire(8, ListOf(Nested(RouteStage), MAX_STAGES, minimum=1))


@record
class Session(Record):
    """A session's money and state."""

    account: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)
    session_key: bytes = wire(3, PUBLIC_KEY)
    route_hash: bytes = wire(4, HASH)
    deposit_udllm: int = wire(5, UDLLM)
    """Everything that the client put in."""
    spent_udllm: int = wire(6, UDLLM)
    """What claims took out of it so far: to owners and to the community."""
    status: int = wire(7, Unsigned(SESSION_CLOSED, minimum=1))
    voucher_n: int = wire(8, U64)
    """Highest voucher that was claimed; 0 = none."""
    legs: tuple[VoucherLeg, ...] = wire(9, ListOf(Nested(VoucherLeg), MAX_STAGES * 2))
    """What was paid to each leg so far, with the rows of its highest claim; ascending by provider."""
    transcript: bytes = wire(10, OPTIONAL_HASH)
    opened_epoch: int = wire(11, U64)
    closing_until_ms: int = wire(12, U64)
    """End of the grace; 0 while open."""
    community_share_ppm: int = wire(13, SHARE)
    """The share in force when the session opened."""
    rated: int = wire(14, BOOL)
    """1 once the account's ratings counted; they count once."""


@record
class Reputation(Record):
    """Beta evidence of a provider for a model, fixed point 2^16 a unit, as of an epoch."""

    successes: int = wire(1, U64)
    failures: int = wire(2, U64)
    epoch: int = wire(3, U64)


@record
class RaterQuota(Record):
    """How much weight a payer has given a provider in an epoch."""

    epoch: int = wire(1, U64)
    weight: int = wire(2, U64)


@record
class Slash(Record):
    """That a provider lost bond for two contradicting acks of one voucher; it never happens twice."""

    reporter: bytes = wire(1, ADDRESS)
    amount_udllm: int = wire(2, UDLLM)


@record
class StakeUnbonding(Record):
    """Stake on its way back, slashable until then for what was signed while it stood behind its validator."""

    amount_udllm: int = wire(1, UDLLM)
    release_time_ms: int = wire(2, U64)
    left_height: int = wire(3, U64)
    """Block that took it out of the validator's stake; votes of that height and the next still had it."""


@record
class ValidatorRecord(Record):
    """What an owner stakes on a consensus key."""

    owner: bytes = wire(1, ADDRESS)
    public_key: bytes = wire(2, PUBLIC_KEY)
    """Ed25519 key that signs blocks."""
    stake_udllm: int = wire(3, UDLLM)
    unbonding: tuple[StakeUnbonding, ...] = wire(4, ListOf(Nested(StakeUnbonding), MAX_UNBONDING))
    """Oldest first."""
    jailed: int = wire(5, BOOL)
    """1 once double signing was proved: no seat ever again, and the key is of no use any more (tombstoned)."""


@record
class Candidate(Record):
    """A validator that stands for a seat."""

    validator: bytes = wire(1, ADDRESS)
    """Address of its consensus key."""
    stake_udllm: int = wire(2, UDLLM)


@record
class CandidateList(Record):
    """Everyone who stands for a seat."""

    entries: tuple[Candidate, ...] = wire(1, ListOf(Nested(Candidate), MAX_CANDIDATES))
    """By stake, highest first; equal ones ascend by address."""


@record
class SeatedValidator(Record):
    """A validator with a seat."""

    public_key: bytes = wire(1, PUBLIC_KEY)
    power: int = wire(2, Unsigned((1 << 60) - 1, minimum=1))
    """Voting power."""


@record
class SeatedValidators(Record):
    """The validator set as of this block, which signs from the second block after it."""

    entries: tuple[SeatedValidator, ...] = wire(1, ListOf(Nested(SeatedValidator), MAX_VALIDATORS))
    """By power, highest first; equal ones ascend by the address of the key: the order of `validators_hash`."""


@record
class Pool(Record):
    """Tokens that belong to nobody's account."""

    balance_udllm: int = wire(1, UDLLM)


@record
class Supply(Record):
    """Genesis + minted − burned is conserved at every height."""

    genesis_udllm: int = wire(1, UDLLM)
    minted_udllm: int = wire(2, UDLLM)
    burned_udllm: int = wire(3, UDLLM)
