"""What one provider does about one model; when it may leave; and which model it helps.

Nothing here reads a clock or draws at random: whoever has the same list, epoch and seed comes to the same decisions,
so that providers that decide at the same time do not all go to the same place, and anyone can check one that moved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.placement.holders import Holder, PlacementRules
from dllm_protocol.placement.plan import Decision, EpochPlan, Why

DEFAULT_RULES = PlacementRules()


def placement_seed(book_hash: bytes, epoch: int) -> bytes:
    """Seed of an epoch's orders (32 bytes): another one each epoch, even where the book stays the same."""
    return tagged_hash(Tag.PLACEMENT_SEED, book_hash, epoch.to_bytes(8, "big"))


def decide(
    me: Holder,
    others: Iterable[Holder],
    *,
    layers: int,
    epoch: int,
    seed: bytes,
    rules: PlacementRules = DEFAULT_RULES,
) -> Decision:
    """Where a provider serves from this epoch on.

    Args:
        me: with ``held=None`` to join.
        others: every other provider of the model; whether ``me`` is among them does not matter.
        layers: of the whole model.
        seed: from `placement_seed`.

    Raises:
        PlacementRefused: a holder or a model that cannot be.
    """
    known = [one for one in others if one.provider != me.provider]
    plan = EpochPlan([*known, me], layers=layers, epoch=epoch, seed=seed, rules=rules)
    for one, decision in plan.decisions(me.provider):
        if one.provider == me.provider:
            return decision
    return Decision(Why.STAY, me.held)


def may_leave(
    me: Holder,
    others: Iterable[Holder],
    *,
    layers: int,
    epoch: int,
    seed: bytes,
    rules: PlacementRules = DEFAULT_RULES,
) -> bool:
    """Whether a provider that wants to go leaves a holder behind for each of its layers.

    Of the holders of a layer who serve and have no turn to move in this epoch, the first in the epoch's order keeps it;
    the next epoch has another order. So two last holders who both want to go do not go together.

    Raises:
        PlacementRefused: a holder or a model that cannot be.
    """
    if me.held is None or not me.is_serving:
        return True
    known = [*(one for one in others if one.provider != me.provider), me]
    plan = EpochPlan(known, layers=layers, epoch=epoch, seed=seed, rules=rules)
    return plan.may_leave(me, range(me.held.first_layer, me.held.end_layer))


@dataclass(frozen=True, slots=True)
class Demand:
    """A model that asks for holders."""

    model: str
    wanted_rows_s: int
    """Rows a second that clients ask for, those that could not be served included; or what they pay, in one measure
    for all models."""
    weakest_mrows_s: int
    """Throughput of its weakest layer now, in thousandths of a row a second."""


def model_most_in_want(demands: Iterable[Demand], provider: bytes) -> str | None:
    """The model that has least of what is asked of it; ties by demand, then by the provider's identity.

    None where nobody asks for anything. A provider chooses among the models that it can hold a slice of, when it
    joins; it does not leave a model for another by this rule.
    """
    asked = [one for one in demands if one.wanted_rows_s > 0]
    if not asked:
        return None
    chosen = asked[0]
    for one in asked[1:]:
        have, need = one.weakest_mrows_s * chosen.wanted_rows_s, chosen.weakest_mrows_s * one.wanted_rows_s
        if (have, -one.wanted_rows_s, _model_tie(one, provider)) < (
            need,
            -chosen.wanted_rows_s,
            _model_tie(chosen, provider),
        ):
            chosen = one
    return chosen.model


def _model_tie(one: Demand, provider: bytes) -> bytes:
    return tagged_hash(Tag.PLACEMENT_TIE, provider, one.model.encode())
