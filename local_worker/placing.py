"""Where a worker serves: one epoch's step, by the proved holder book and what the worker knows of itself.

A move has two parts, so that no two workers take away what each relied on the other for. First the worker *says* on
chain which slice it will hold, and fetches it while it serves the old one on: from then on nobody counts on it for
what it leaves. Once all lies on its disk, it *switches* in an epoch in which the rule lets it leave, by the holders who
are listed then. One that may not leave for `PATIENCE_EPOCHS` gives the move up.

Nothing here reads a clock, a disk or the network: whoever holds the same book comes to the same step.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

from dllm_protocol.holder_book import HolderBook, holders_hash
from dllm_protocol.placement.holders import Holder, PlacementRules
from dllm_protocol.placement.listed import holders_of
from dllm_protocol.placement.plan import Decision, EpochPlan, Why
from dllm_protocol.placement.rule import DEFAULT_RULES, decide, placement_seed
from dllm_protocol.placement.slices import Slice

PATIENCE_EPOCHS = 3
"""So many epochs a worker waits for leave to switch; then it stays where it is."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a worker knows of itself.

    Attributes:
        speed_layer_rows_s: as measured, or what it takes itself for until then.
        memory_layers: the most layers of the model that fit.
        serving: the slice that it offers now; None before its first.
        coming: the slice that it said it will hold, where that is another one.
        ready_epoch: since when all of that slice lies on its disk; None while it is fetched.
    """

    provider: bytes
    owner: bytes
    speed_layer_rows_s: int
    memory_layers: int
    serving: Slice | None = None
    coming: Slice | None = None
    ready_epoch: int | None = None


class Act(enum.Enum):
    """What to do in an epoch."""

    STAY = "stay"
    WAIT = "wait"
    """Say that there is memory and no slice, and look again in the next epoch."""
    FETCH = "fetch"
    """Say which slice is coming, and fetch it."""
    SWITCH = "switch"
    """Serve what has come, and then no longer what was served."""
    GIVE_UP = "give up"
    """Say that the old slice stays."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a worker does in an epoch, and why."""

    act: Act
    slice: Slice | None
    """Where it will serve after it; None where nothing fits."""
    why: Why = Why.STAY


class EpochView:
    """A proved holder book in one epoch, and the steps that follow from it.

    Args:
        book: held against its proved hash.
        epoch: by the newest verified block; never before the book's.
        layers: of the whole model.

    Raises:
        PlacementRefused: a book that no placement can be decided over.
    """

    def __init__(
        self, book: HolderBook, *, epoch: int, layers: int, rules: PlacementRules = DEFAULT_RULES
    ) -> None:
        self.epoch = max(epoch, book.epoch)
        self.holders = holders_of(book, self.epoch)
        self._listed = {one.provider: one for one in self.holders}
        self._layers = layers
        self._rules = rules
        # Another order each epoch, even where the book stays the same.
        self._seed = placement_seed(holders_hash(book), self.epoch)

    def step_of(self, own: Own) -> Step:
        """What a worker does in this epoch."""
        if own.coming is not None:
            return self._after_fetching(own, own.coming)
        decision = self._decision(own)
        if decision.held is None:
            return Step(Act.WAIT, None, decision.why)
        if decision.held == own.serving:
            return Step(Act.STAY, own.serving, decision.why)
        return Step(Act.FETCH, decision.held, decision.why)

    def rank(self, provider: bytes) -> int:
        """How many who serve come before a provider in this epoch's order."""
        mine = self._plan.order_of(provider)
        return sum(one.is_serving and self._plan.order(one) < mine for one in self.holders)

    def may_leave(self, own: Own, chosen: Slice | None = None) -> bool:
        """Whether each layer that the worker serves now, and no longer would, keeps a holder."""
        if own.serving is None:
            return True
        left = [
            layer
            for layer in range(own.serving.first_layer, own.serving.end_layer)
            if chosen is None or not chosen.first_layer <= layer < chosen.end_layer
        ]
        me = self._listed.get(own.provider) or self._holder(own)
        return self._plan.may_leave(me, left)

    def _after_fetching(self, own: Own, coming: Slice) -> Step:
        if own.ready_epoch is None:
            return Step(Act.STAY, own.serving)
        if self.may_leave(own, coming):
            return Step(Act.SWITCH, coming)
        if self.epoch - own.ready_epoch >= PATIENCE_EPOCHS:
            return Step(Act.GIVE_UP, own.serving)
        return Step(Act.STAY, own.serving)

    def _decision(self, own: Own) -> Decision:
        listed = self._listed.get(own.provider)
        if listed is not None and listed.held == own.serving:
            return self._decisions.get(own.provider, Decision(Why.STAY, own.serving))
        if own.serving is not None:
            # The book is older than what this worker said or offered last: nobody else reckons with that yet.
            return Decision(Why.STAY, own.serving)
        return decide(
            self._holder(own),
            self.holders,
            layers=self._layers,
            epoch=self.epoch,
            seed=self._seed,
            rules=self._rules,
        )

    def _holder(self, own: Own) -> Holder:
        return Holder(own.provider, own.owner, own.speed_layer_rows_s, own.memory_layers, own.serving)

    @cached_property
    def _plan(self) -> EpochPlan:
        return EpochPlan(
            self.holders, layers=self._layers, epoch=self.epoch, seed=self._seed, rules=self._rules
        )

    @cached_property
    def _decisions(self) -> dict[bytes, Decision]:
        return {one.provider: decision for one, decision in self._plan.decisions()}
