"""One epoch's decisions about one model, in an order that everybody computes alike.

First those who wait are given slices, one after the other, each reckoning with those before it. Then it is the turn of
some who serve: those that could be spared, in an order that a seed shuffles each epoch, `PlacementRules.movers_ppm`
of all. Each has these reasons to move, in this order:

    cover    a layer has no holder at all
    thicken  a layer has fewer owners than wanted, and where it leaves no layer falls below the weakest
    align    its slice crosses the cuts in force, so that routes do not meet it
    balance  without it, each layer that it holds still has the rate of the weakest layer and `gain_ppm` more, and
             its new slice holds a weakest layer

No layer loses its last copy, whatever those in front do: a provider leaves a layer only if as many owners as wanted
(to cover: if one other provider) hold it who serve already and *had no turn before it*. Of those who leave a layer the
last in the order leaves such holders behind, and they stay.

With `balance` each move lifts a weakest layer and leaves none as low, so the sorted list of the layers' rates rises: it
ends, and a network at rest stays at rest.

Bounds: O(N log N + S·(L + F)) for N holders, S ≤ `MAX_WAITING` + `MAX_MOVERS` steps, and F ≤ 2·L slices in force.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.placement.holders import PPM, Holder, PlacementRules, check_holders
from dllm_protocol.placement.slices import Slice, fitting_slices, frame_of
from dllm_protocol.placement.supply import Copies, layer_rates_mrows_s, rate_mrows_s
from dllm_protocol.ranked_book import least_slice

MAX_WAITING = 256
"""So many who wait reckon with each other in an epoch; more are placed as if alone behind these."""
MAX_MOVERS = 64
"""So many move in an epoch, however large the network."""


class Why(enum.Enum):
    """What a decision is for."""

    STAY = "stay"
    JOIN = "join"
    COVER = "cover"
    THICKEN = "thicken"
    ALIGN = "align"
    BALANCE = "balance"
    TOO_SMALL = "too small"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a provider does in an epoch."""

    why: Why
    held: Slice | None
    """The slice to serve from now on; None where no part is small enough for its memory."""


class EpochPlan:
    """The decisions of an epoch over what everybody knows at its beginning.

    Args:
        holders: every provider that serves, loads or waits, each once.
        layers: of the whole model.
        seed: 32 bytes that nobody could choose, from `rule.placement_seed`.

    Raises:
        PlacementRefused: a holder that cannot be.
    """

    def __init__(
        self, holders: Iterable[Holder], *, layers: int, epoch: int, seed: bytes, rules: PlacementRules
    ) -> None:
        self._holders = check_holders(holders, layers)
        self._layers = layers
        self._epoch = epoch
        self._seed = seed
        self._rules = rules
        # No offer of fewer may be made, whatever the rules say.
        self._least_layers = min(layers, max(rules.least_layers, least_slice(layers)))
        self._rates = layer_rates_mrows_s(self._holders, layers)
        self._planned = Copies(self._holders, layers)
        speeds: defaultdict[Slice, int] = defaultdict(int)
        for one in self._holders:
            if one.held is not None:
                speeds[one.held] += one.speed_layer_rows_s
        self._frame = frame_of(speeds, layers, self._least_layers)
        self._in_force = frozenset(self._frame)
        self._fitting: dict[int, tuple[Slice, ...]] = {}
        self._is_whole = all(self._rates)

    def order(self, one: Holder) -> bytes:
        """Where a provider stands in this epoch's order (compare as bytes)."""
        return self.order_of(one.provider)

    def order_of(self, provider: bytes) -> bytes:
        """The same by a provider's id."""
        return tagged_hash(Tag.PLACEMENT_TURN, self._seed, provider)

    @cached_property
    def _staying(self) -> Copies:
        """Copies to rely on: held by who serves already and had no turn yet."""
        return Copies((one for one in self._holders if one.is_serving), self._layers)

    @cached_property
    def turns(self) -> list[tuple[Holder, Slice]]:
        """Who may move in this epoch, in turn, with what it holds: only who could, so that turns are not wasted.

        Where a layer has no holder all may who are not the last at theirs, and who borders on it with memory left.
        """
        serving = [(one, one.held) for one in self._holders if one.held is not None and one.is_serving]
        if self._is_whole:
            weakest, is_thin = min(self._rates), min(self._planned.owners) < self._rules.copies
            able = [pair for pair in serving if self._could_move(*pair, weakest, is_thin=is_thin)]
            most = min(MAX_MOVERS, max(1, len(self._holders) * self._rules.movers_ppm // PPM))
        else:
            able = [pair for pair in serving if self._could_grow_or_go(*pair)]
            most = MAX_MOVERS
        return sorted(able, key=lambda pair: self.order(pair[0]))[:most]

    def _could_grow_or_go(self, one: Holder, held: Slice) -> bool:
        """Whether it could help where a layer has no holder."""
        return self._staying.least_holders(held) > 1 or bool(self._grown(held, one.memory_layers))

    def _could_move(self, one: Holder, held: Slice, weakest: int, *, is_thin: bool) -> bool:
        """Whether it can be spared, and has a reason to go; all layers are held."""
        if not self._has_rested(one) or self._staying.least_owners(held) <= self._rules.copies:
            return False
        kept = self._least_rate(held) - rate_mrows_s(one.speed_layer_rows_s, held.layers)
        return held not in self._in_force or self._is_richer(kept, weakest) or (is_thin and kept >= weakest)

    def _is_richer(self, kept: int, weakest: int) -> bool:
        """Whether a rate is above the weakest layer's by the stated share."""
        return kept * PPM >= weakest * (PPM + self._rules.gain_ppm)

    def _least_rate(self, slice_: Slice) -> int:
        return min(self._rates[slice_.first_layer : slice_.end_layer])

    def _has_rested(self, one: Holder) -> bool:
        return self._epoch - one.since_epoch >= self._rules.rest_epochs

    def decisions(self, asked: bytes | None = None) -> Iterator[tuple[Holder, Decision]]:
        """Those who wait, then those who have a turn; whoever is not named stays. To be walked once.

        Args:
            asked: a provider; decisions that make no difference to this one's may be left out.
        """
        waiting = sorted((one for one in self._holders if one.held is None), key=self.order)
        # By the list as it was: whoever comes in this epoch is no reason to have a turn.
        turns = [] if any(one.provider == asked for one in waiting) else self.turns
        for place, one in enumerate(waiting):
            if place >= MAX_WAITING and asked not in (None, one.provider):
                continue
            chosen = self._best(one, self._options(one))
            if chosen is not None and place < MAX_WAITING:
                self._arrive(one, chosen)
            yield one, Decision(Why.TOO_SMALL if chosen is None else Why.JOIN, chosen)
        for one, held in turns:
            decision = self._move(one, held)
            yield one, decision

    def may_leave(self, one: Holder, layers: Iterable[int]) -> bool:
        """Whether a provider that stops to serve some layers leaves a holder behind for each of them.

        Of the holders of a layer who serve and have no turn to move in this epoch, the first in the epoch's order
        keeps it; the next epoch has another order. So two last holders who both want to go do not go together.
        """
        mine = self.order(one)
        before = (
            other for other in self._keepers if other.provider != one.provider and self.order(other) < mine
        )
        kept = layer_rates_mrows_s(before, self._layers)
        return all(kept[layer] for layer in layers)

    @cached_property
    def _keepers(self) -> list[Holder]:
        moving = {one.provider for one, _ in self.turns}
        return [one for one in self._holders if one.is_serving and one.provider not in moving]

    def _arrive(self, one: Holder, held: Slice) -> None:
        self._count(one, held, 1)
        self._planned.add(one.owner, held)

    def _leave(self, one: Holder, held: Slice) -> None:
        self._count(one, held, -1)
        self._planned.take(one.owner, held)

    def _count(self, one: Holder, held: Slice, sign: int) -> None:
        rate = sign * rate_mrows_s(one.speed_layer_rows_s, held.layers)
        for layer in range(held.first_layer, held.end_layer):
            self._rates[layer] += rate

    def _move(self, one: Holder, held: Slice) -> Decision:
        """A turn: takes the provider out, looks where it is wanted most, and puts it there or back."""
        # Whoever had its turn is no copy for those behind it, whether it goes or not.
        self._staying.take(one.owner, held)
        weakest = min(self._rates)
        self._leave(one, held)
        options = (
            self._options(one) if weakest else (*self._options(one), *self._grown(held, one.memory_layers))
        )
        allowed = [chosen for chosen in options if self._may_go(held, chosen, is_whole=weakest > 0)]
        chosen = self._best(one, allowed)
        why = Why.STAY if chosen is None else self._reason(one, held, chosen, weakest)
        decision = Decision(why, held if why is Why.STAY else chosen)
        self._arrive(one, decision.held or held)
        return decision

    def _may_go(self, held: Slice, chosen: Slice, *, is_whole: bool) -> bool:
        """Whether enough stay behind at the layers that it would no longer hold."""
        left = _without(held, chosen)
        if is_whole:
            return all(self._staying.owners[layer] >= self._rules.copies for layer in left)
        return all(self._staying.holders[layer] for layer in left)

    def _reason(self, one: Holder, held: Slice, chosen: Slice, weakest: int) -> Why:
        """Why it should move; rates and planned copies are without it, the weakest rate is with it."""
        if chosen == held:
            return Why.STAY
        if weakest == 0:
            return Why.COVER if self._uncovered(chosen) > self._uncovered(held) else Why.STAY
        # While it loads, it serves none of what it holds now.
        if not self._has_rested(one) or self._staying.least_owners(held) < self._rules.copies:
            return Why.STAY
        kept = self._least_rate(held)
        if kept >= weakest and self._thin(one, chosen):
            return Why.THICKEN
        if held not in self._in_force:
            return Why.ALIGN
        lifts = self._is_richer(kept, weakest) and self._least_rate(chosen) == weakest
        return Why.BALANCE if lifts else Why.STAY

    def _options(self, one: Holder) -> list[Slice]:
        """Slices that a provider may take.

        Where all layers are held: the largest parts of the cuts that it can hold. Else what it can hold at either end
        of a run of layers without a holder, and parts that close such a run. So what stays free stays in one piece, of
        which an offer can be made, and meets what is held: a network covers a model as soon as the memories that came
        to it add up to its layers.
        """
        if one.memory_layers >= self._layers:
            return [Slice(0, self._layers)]
        if one.memory_layers < self._least_layers:
            return []
        parts = self._parts(one.memory_layers)
        gaps = self._gaps()
        if not gaps:
            return list(parts)
        found: set[Slice] = set()
        for gap in gaps:
            near = [part for part in parts if _overlap(part, gap)]
            taken = self._bite(gap.layers, one.memory_layers)
            if taken >= self._least_layers:
                found.add(Slice(gap.first_layer, gap.first_layer + taken))
                found.add(Slice(gap.end_layer - taken, gap.end_layer))
                near = [part for part in near if part.has(gap)]
            found.update(near)
        return sorted(found)

    def _bite(self, free: int, most: int) -> int:
        """How many of so many free layers in a run may be taken from one end: what is left is nothing, or enough for an
        offer; 0 where that cannot be."""
        taken = min(free, most)
        left = free - taken
        return max(0, taken - (self._least_layers - left)) if 0 < left < self._least_layers else taken

    def _gaps(self) -> list[Slice]:
        """Runs of layers that nobody holds, as long as they go, ascending."""
        found: list[Slice] = []
        first = 0
        for is_free, run in groupby(self._rates, key=lambda rate: rate == 0):
            end = first + sum(1 for _ in run)
            if is_free:
                found.append(Slice(first, end))
            first = end
        return found

    def _best(self, one: Holder, options: Sequence[Slice]) -> Slice | None:
        """The slice in which a provider helps most: it covers the most layers that nobody has, then the most that
        have too few owners, then the weakest layer; of equal ones the longest. Ties go by its identity."""
        return min(options, key=lambda slice_: self._worth(one, slice_), default=None)

    def _worth(self, one: Holder, slice_: Slice) -> tuple[int, int, int, int, bytes]:
        return (
            -self._uncovered(slice_),
            -self._thin(one, slice_),
            self._least_rate(slice_),
            -slice_.layers,
            self._tie(one, slice_),
        )

    def _tie(self, one: Holder, slice_: Slice) -> bytes:
        ends = slice_.first_layer.to_bytes(4, "big") + slice_.end_layer.to_bytes(4, "big")
        return tagged_hash(Tag.PLACEMENT_TIE, self._seed, one.provider, ends)

    def _uncovered(self, slice_: Slice) -> int:
        return self._rates[slice_.first_layer : slice_.end_layer].count(0)

    def _thin(self, one: Holder, slice_: Slice) -> int:
        """Layers of a slice with too few owners to which this one would be another."""
        if self._planned.least_owners(slice_) >= self._rules.copies:
            return 0
        owners = self._planned.owners
        return sum(owners[layer] < self._rules.copies for layer in self._planned.only_in(one.owner, slice_))

    def _parts(self, memory_layers: int) -> tuple[Slice, ...]:
        if memory_layers not in self._fitting:
            self._fitting[memory_layers] = fitting_slices(
                self._frame,
                self._layers,
                memory_layers=memory_layers,
                least_layers=self._least_layers,
            )
        return self._fitting[memory_layers]

    def _grown(self, held: Slice, memory_layers: int) -> list[Slice]:
        """A slice with layers beside it that nobody holds, as far as the memory goes: to the right first, to the left
        first."""
        first, end = held.first_layer, held.end_layer
        spare = max(0, memory_layers - held.layers)
        if spare == 0:
            return []
        free_right, free_left = 0, 0
        while end + free_right < self._layers and not self._rates[end + free_right]:
            free_right += 1
        while first - free_left > 0 and not self._rates[first - free_left - 1]:
            free_left += 1
        right, left = self._bite(free_right, spare), self._bite(free_left, spare)
        grown = {
            Slice(first - self._bite(free_left, spare - right), end + right),
            Slice(first - left, end + self._bite(free_right, spare - left)),
        }
        return sorted(one for one in grown - {held} if one.layers >= self._least_layers)


def _overlap(one: Slice, other: Slice) -> bool:
    """Whether they have a layer in common."""
    return one.first_layer < other.end_layer and other.first_layer < one.end_layer


def _without(held: Slice, chosen: Slice) -> list[int]:
    """Layers of one slice that another lacks."""
    return [
        layer
        for layer in range(held.first_layer, held.end_layer)
        if not chosen.first_layer <= layer < chosen.end_layer
    ]
