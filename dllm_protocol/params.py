"""Parameters of a chain, fixed at genesis [format]. Everything that could be a constant and may not be."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dllm_protocol.actions import (
    ACTION_NUMBERS,
    OpenSession,
    SetHolding,
    SetOffer,
    WithdrawHolding,
    WithdrawOffer,
)
from dllm_protocol.consensus_params import BLOCK_MAX_BYTES, BLOCK_MAX_BYTES_LIMIT
from dllm_protocol.encoding import PPM as SHARE
from dllm_protocol.encoding import U32, U64, UDLLM, ListOf, Nested, Record, Unsigned, record, wire
from dllm_protocol.errors import UsageRefused
from dllm_protocol.staking import MAX_VALIDATORS
from dllm_protocol.transaction import Transaction


@record
class ActionWeight(Record):
    """Work that one action of a kind costs every node, in units of a transfer's thousandth."""

    action: int = wire(1, U32)
    weight: int = wire(2, U32)
    weight_per_offer: int = wire(3, U32)
    """Besides, for each offer or further holder in the newest books of the model that the action names; 0 for actions
    that name none."""


@record
class FeeSchedule(Record):
    """The least fee of a transaction, in udllm: ⌈weight · price / 1000⌉, where weight is what its base, its bytes and
    its actions weigh together.
    """

    base_weight: int = wire(1, U32)
    weight_per_byte: int = wire(2, U32)
    action_weights: tuple[ActionWeight, ...] = wire(3, ListOf(Nested(ActionWeight), 256))
    """Ascending by action; an action that is not listed weighs 10,000."""
    udllm_per_kiloweight: int = wire(4, U32)


@record
class Params(Record):
    """All parameters."""

    epoch_ms: int = wire(1, Unsigned(1 << 40))
    """Offer books freeze by epochs of block time."""
    heartbeat_ms: int = wire(2, Unsigned(1 << 40))
    """An idle chain makes a block this often, so that trust roots stay fresh."""
    community_share_ppm: int = wire(3, SHARE)
    """Part of a session's price that goes to the community pool."""
    close_grace_ms: int = wire(4, Unsigned(1 << 40))
    """How long the other side may claim after a session began to close."""
    unbonding_ms: int = wire(5, Unsigned(1 << 43))
    evidence_age_ms: int = wire(6, Unsigned(1 << 43))
    trusting_period_ms: int = wire(7, Unsigned(1 << 43))
    """Light nodes trust a header this long. Unbonding > evidence age > trusting period."""
    provider_bond_udllm: int = wire(8, UDLLM)
    model_bond_udllm: int = wire(9, UDLLM)
    slash_contradiction_ppm: int = wire(10, SHARE)
    offer_life_epochs: int = wire(11, U64)
    """An offer without heartbeat leaves the next book after this many epochs."""
    max_offers_per_model: int = wire(12, Unsigned(1 << 16))
    reputation_decay: int = wire(13, Unsigned(1 << 16))
    """Evidence kept a day of epochs, in 2^16ths."""
    reputation_weight_udllm: int = wire(14, UDLLM)
    """Paid amount that counts as one unit of evidence."""
    reputation_rater_cap: int = wire(15, U32)
    """Units that one payer may give one provider in an epoch."""
    reputation_penalty_ppm: int = wire(16, Unsigned(10_000_000))
    """How much dearer an offer of score 0 counts than one of score 1."""
    fees: FeeSchedule = wire(17, Nested(FeeSchedule))
    min_stake_udllm: int = wire(18, UDLLM)
    """Least stake of a validator."""
    max_validators: int = wire(19, Unsigned(MAX_VALIDATORS))
    """Seats in the validator set; the highest stakes take them. A chain of 1 seat never changes hands."""
    slash_double_sign_ppm: int = wire(20, SHARE)
    """Part of a validator's stake, and of what unbonds since, that is burned for double signing."""
    block_max_bytes: int = wire(21, Unsigned(BLOCK_MAX_BYTES_LIMIT))
    """The largest block, evidence and commit included; 0 = 22,020,096, CometBFT's default when older chains began."""
    stage_penalty_ppm: int = wire(22, SHARE)
    """How much dearer a route counts for each stage beyond the first, in millionths of the model's reserve prices."""


class TimesOutOfOrder(UsageRefused):
    """A chain on which trust outlives evidence, or evidence the stake that it could take."""

    code = "E_TIMES"


def check_times(params: Params) -> None:
    """Whoever signs what a light node still trusts must still be punishable, with stake still there to take.

    Raises:
        TimesOutOfOrder: naming the three times.
    """
    unbonding_ms, evidence_ms, trusting_ms = (
        params.unbonding_ms,
        params.evidence_age_ms,
        params.trusting_period_ms,
    )
    if not unbonding_ms > evidence_ms > trusting_ms > params.heartbeat_ms:
        raise TimesOutOfOrder(
            f"unbonding {unbonding_ms} ms, evidence age {evidence_ms} ms, trusting period {trusting_ms} ms and "
            f"heartbeat {params.heartbeat_ms} ms: each must exceed the next",
            hint="do not use this chain: its genesis would let validators cheat without losing anything",
        )


_NUMBER_OF = {action_type: number for number, action_type in ACTION_NUMBERS.items()}
UNLISTED_WEIGHT = 10_000
BLOCK_WEIGHT_MAX = 10_000_000
"""Most weight of all transactions in a block, so that dear actions make shorter blocks."""

OffersOf = Callable[[str], int]
"""How many stand in the newest frozen books of a model, by its name: those with an offer, and the other holders; 0
where there is no book."""


def weight_of(schedule: FeeSchedule, transaction: Transaction, size_bytes: int, offers_of: OffersOf) -> int:
    """Weight of a transaction: what its work and its bytes cost every node.

    Args:
        offers_of: asked only for actions whose weight grows with a book. Books freeze at the end of a block, so that
            the answer is the same in the whole of the next one.
    """
    actions = sum(_weight_of_action(schedule, one, offers_of) for one in transaction.body.actions)
    return schedule.base_weight + schedule.weight_per_byte * size_bytes + actions


def weighed_models(schedule: FeeSchedule, actions: Iterable[Record]) -> frozenset[str]:
    """The models whose books' sizes a transaction with these actions is weighed by."""
    dear = {entry.action for entry in schedule.action_weights if entry.weight_per_offer}
    return frozenset(
        one.model for one in actions if isinstance(one, _OVER_A_BOOK) and _NUMBER_OF[type(one)] in dear
    )


_OVER_A_BOOK = (OpenSession, SetOffer, WithdrawOffer, SetHolding, WithdrawHolding)


def _weight_of_action(schedule: FeeSchedule, action: Record, offers_of: OffersOf) -> int:
    number = _NUMBER_OF[type(action)]
    # The list ascends and the common actions stand first; a dict would be built anew for every transaction.
    for entry in schedule.action_weights:
        if entry.action == number:
            if entry.weight_per_offer and isinstance(action, _OVER_A_BOOK):
                return entry.weight + entry.weight_per_offer * offers_of(action.model)
            return entry.weight
    return UNLISTED_WEIGHT


def least_fee(schedule: FeeSchedule, transaction: Transaction, size_bytes: int, offers_of: OffersOf) -> int:
    """The least fee that the chain takes for a transaction, in udllm; `offers_of` as in `weight_of`."""
    return fee_of_weight(schedule, weight_of(schedule, transaction, size_bytes, offers_of))


def fee_of_weight(schedule: FeeSchedule, weight: int) -> int:
    """The least fee of a transaction of this weight, in udllm."""
    return -(-weight * schedule.udllm_per_kiloweight // 1000)


DEFAULT_FEES = FeeSchedule(
    base_weight=1000,
    weight_per_byte=2,
    action_weights=tuple(
        ActionWeight(number, weight, weight_per_offer)
        for number, weight, weight_per_offer in (
            (1, 1000, 0),
            (2, 1000, 0),
            (10, 20_000, 0),
            (20, 5000, 0),
            (21, 2000, 0),
            (22, 1500, 0),
            (23, 1500, 0),
            (24, 3000, 10),
            (25, 2000, 10),
            (26, 1000, 0),
            (27, 5000, 0),
            (28, 3000, 10),
            (29, 2000, 10),
            (30, 5000, 80),
            (31, 1500, 0),
            (32, 3000, 0),
            (33, 4000, 0),
            (40, 20_000, 0),
            (41, 20_000, 0),
        )
    ),
    udllm_per_kiloweight=10,
)

_DAY_MS = 24 * 3600 * 1000

NETWORK_PARAMS = Params(
    epoch_ms=10 * 60 * 1000,
    heartbeat_ms=60 * 1000,
    community_share_ppm=100_000,
    close_grace_ms=_DAY_MS,
    unbonding_ms=21 * _DAY_MS,
    evidence_age_ms=18 * _DAY_MS,
    trusting_period_ms=14 * _DAY_MS,
    provider_bond_udllm=100_000_000,
    model_bond_udllm=1_000_000_000,
    slash_contradiction_ppm=500_000,
    offer_life_epochs=6,
    max_offers_per_model=10_000,
    reputation_decay=65_527,
    reputation_weight_udllm=1_000,
    reputation_rater_cap=20,
    reputation_penalty_ppm=1_000_000,
    fees=DEFAULT_FEES,
    min_stake_udllm=1_000_000_000,
    max_validators=100,
    slash_double_sign_ppm=50_000,
    block_max_bytes=BLOCK_MAX_BYTES,
    stage_penalty_ppm=50_000,
)
"""What a real network starts from."""
