"""A network of providers that join, serve, move, leave and crash, each deciding by `dllm_protocol.placement` alone.

All that happens in an epoch is decided over the list as it was at its beginning: who joins knows nothing of the others
who join, who leaves nothing of the others who leave. Whoever moves or joins loads for one epoch, in which it serves
nothing. The seed decides everything: a run is replayed with it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from dllm_protocol.hashing import sha256
from dllm_protocol.placement.holders import Holder, PlacementRules
from dllm_protocol.placement.plan import EpochPlan, Why
from dllm_protocol.placement.rule import DEFAULT_RULES, decide, may_leave, placement_seed
from dllm_protocol.placement.slices import Slice
from dllm_protocol.placement.supply import layer_rates_mrows_s

# (layers that fit, row-layers a second, how many of a hundred): from a laptop to a large card.
KINDS = ((5, 1500, 20), (8, 4000, 30), (11, 9000, 25), (22, 16_000, 15), (30, 40_000, 10))


@dataclass(frozen=True, slots=True)
class Churn:
    """What happens in an epoch, in thousandths of the providers."""

    crash: int = 2
    leave: int = 2
    join: int = 4


@dataclass
class Counts:
    """What happened in a run."""

    moves: int = 0
    joins: int = 0
    crashes: int = 0
    left: int = 0
    reasons: dict[Why, int] = field(default_factory=dict)


class PlacementWorld:
    """One model's providers, epoch by epoch."""

    def __init__(
        self, seed: int, *, layers: int, rules: PlacementRules = DEFAULT_RULES, owners: int = 400
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.layers = layers
        self.rules = rules
        self.owners = owners
        self.epoch = 0
        self.holders: dict[bytes, Holder] = {}
        self.leaving: set[bytes] = set()
        self.kept: dict[bytes, Slice] = {}
        """What a provider that loads has of what it held before."""
        self.counts = Counts()
        self.taken_away: list[int] = []
        """Layers that lost their last copy by decisions rather than by a crash: there must be none."""
        self._made = 0

    def newcomer(self, *, memory_layers: int | None = None, speed: int | None = None) -> Holder:
        """A provider of a kind drawn at random that holds nothing yet."""
        self._made += 1
        fits, usual, _ = self.rng.choices(KINDS, [weight for _, _, weight in KINDS])[0]
        return Holder(
            provider=sha256(b"provider" + self.seed.to_bytes(8, "big") + self._made.to_bytes(8, "big"))[:20],
            owner=sha256(b"owner" + self.rng.randrange(self.owners).to_bytes(8, "big"))[:20],
            speed_layer_rows_s=speed or usual * self.rng.randint(50, 150) // 100,
            memory_layers=memory_layers or fits,
        )

    def step(self, newcomers: Iterable[Holder] = (), *, leavers: int = 0, crashes: int = 0) -> None:
        """One epoch: decisions over the list as it is, then crashes, then what was loaded serves."""
        book = tuple(self.holders.values())
        before = self.possessed()
        seed = placement_seed(sha256(repr((self.seed, len(book))).encode()), self.epoch)
        self._leave(book, leavers, seed)
        changed = self._moves(book, seed) | self._joins(book, newcomers, seed)
        self.holders.update(changed)
        self.taken_away += sorted(before - self.possessed())
        self._crash(crashes)
        for provider, holder in self.holders.items():
            if not holder.is_serving and provider not in changed:
                self.holders[provider] = replace(holder, is_serving=True)
                self.kept.pop(provider, None)
        self.epoch += 1

    def _moves(self, book: Sequence[Holder], seed: bytes) -> dict[bytes, Holder]:
        plan = EpochPlan(book, layers=self.layers, epoch=self.epoch, seed=seed, rules=self.rules)
        moved = {}
        for one, decision in plan.decisions():
            if decision.held is None or decision.held == one.held or one.provider not in self.holders:
                continue
            moved[one.provider] = self._loading(one, decision.held)
            self.counts.moves += 1
            self.counts.reasons[decision.why] = self.counts.reasons.get(decision.why, 0) + 1
        return moved

    def _joins(self, book: Sequence[Holder], newcomers: Iterable[Holder], seed: bytes) -> dict[bytes, Holder]:
        joined = {}
        for one in newcomers:
            decision = decide(one, book, layers=self.layers, epoch=self.epoch, seed=seed, rules=self.rules)
            self.counts.joins += 1
            if decision.held is not None:
                joined[one.provider] = self._loading(one, decision.held)
        return joined

    def _loading(self, one: Holder, held: Slice) -> Holder:
        if one.held is not None:
            first, end = max(one.held.first_layer, held.first_layer), min(one.held.end_layer, held.end_layer)
            if first < end:
                self.kept[one.provider] = Slice(first, end)
        return replace(one, held=held, since_epoch=self.epoch, is_serving=False)

    def _leave(self, book: Sequence[Holder], leavers: int, seed: bytes) -> None:
        staying = sorted(set(self.holders) - self.leaving)
        self.leaving |= set(self.rng.sample(staying, min(leavers, len(staying))))
        for provider in sorted(self.leaving):
            one = self.holders[provider]
            if may_leave(one, book, layers=self.layers, epoch=self.epoch, seed=seed, rules=self.rules):
                self._remove(provider)
                self.counts.left += 1

    def _crash(self, crashes: int) -> None:
        for provider in self.rng.sample(sorted(self.holders), min(crashes, len(self.holders))):
            self._remove(provider)
            self.counts.crashes += 1

    def _remove(self, provider: bytes) -> None:
        del self.holders[provider]
        self.leaving.discard(provider)
        self.kept.pop(provider, None)

    def churn(self, epochs: int, churn: Churn) -> None:
        """Epochs in which some join, some leave and some crash."""
        for _ in range(epochs):
            size = len(self.holders)
            joining = self._about(size * churn.join)
            self.step(
                [self.newcomer() for _ in range(joining)],
                leavers=self._about(size * churn.leave),
                crashes=self._about(size * churn.crash),
            )

    def _about(self, thousandths: int) -> int:
        return thousandths // 1000 + (self.rng.randrange(1000) < thousandths % 1000)

    def settle(self, most_epochs: int) -> int:
        """Epochs without churn until nobody has moved for some time; how many it took."""
        for passed in range(most_epochs):
            before = self.counts.moves
            for _ in range(self.rules.rest_epochs + 2):
                self.step()
            if self.counts.moves == before:
                return passed * (self.rules.rest_epochs + 2)
        raise AssertionError(f"seed {self.seed}: moves do not end; so far {self.counts}")

    def possessed(self) -> set[int]:
        """Layers of which somebody has a copy."""
        found: set[int] = set()
        for one in self.holders.values():
            held = one.held if one.is_serving else self.kept.get(one.provider)
            if held is not None:
                found.update(range(held.first_layer, held.end_layer))
        return found

    def serving(self) -> list[Holder]:
        """Who serves now."""
        return [one for one in self.holders.values() if one.is_serving]

    def weakest_mrows_s(self) -> int:
        """What the weakest layer carries now."""
        return min(layer_rates_mrows_s(self.serving(), self.layers))


def layers_without_holder(world: PlacementWorld) -> list[int]:
    """Layers that nobody serves now."""
    rates = layer_rates_mrows_s(world.serving(), world.layers)
    return [layer for layer, rate in enumerate(rates) if rate == 0]
