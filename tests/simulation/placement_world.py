"""A network of providers that join, serve, move, leave and crash, each taking the steps that a worker takes:
`local_worker.placing` over the holder book that a chain would freeze.

All that happens in an epoch is decided over the book as it was at its beginning: who joins knows nothing of the others
who join, who leaves nothing of the others who leave. Whoever moves or joins fetches for one epoch; one that moves
serves its old slice until it may switch. The seed decides everything: a run is replayed with it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dllm_protocol.hashing import sha256
from dllm_protocol.holder_book import HolderBook, HolderEntry
from dllm_protocol.placement.holders import Holder, PlacementRules
from dllm_protocol.placement.plan import Why
from dllm_protocol.placement.rule import DEFAULT_RULES
from dllm_protocol.placement.slices import Slice
from dllm_protocol.placement.supply import layer_rates_mrows_s
from local_worker.placing import Act, EpochView, Own, Step

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
    given_up: int = 0
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
        self.old: dict[bytes, Slice] = {}
        """What a provider that fetches another slice serves until it switches."""
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
        """One epoch: every worker's step over the book as it is, then crashes."""
        view = EpochView(self.book(), epoch=self.epoch, layers=self.layers, rules=self.rules)
        before = self.possessed()
        left = self._leaving_now(view, leavers)
        steps = {provider: view.step_of(self.own(one)) for provider, one in self.holders.items()}
        joined = [(one, view.step_of(self.own(one))) for one in newcomers]
        self.counts.joins += len(joined)
        for provider, step in steps.items():
            if provider not in left:
                self._do(self.holders[provider], step)
        for provider in left:
            self._remove(provider)
            self.counts.left += 1
        for one, step in joined:
            if step.slice is not None:
                self._fetch(one, step.slice)
        self.taken_away += sorted(before - self.possessed())
        self._crash(crashes)
        self.epoch += 1

    def book(self) -> HolderBook:
        """What the chain would freeze now."""
        entries = (
            HolderEntry(
                one.provider,
                one.owner,
                one.speed_layer_rows_s,
                one.memory_layers,
                one.held.first_layer if one.held else 0,
                one.held.end_layer if one.held else 0,
                one.since_epoch,
                int(one.is_serving),
            )
            for one in self.holders.values()
        )
        return HolderBook("model", self.epoch, tuple(sorted(entries, key=lambda one: one.provider)))

    def own(self, one: Holder) -> Own:
        """What a provider knows of itself. All of a slice is on its disk one epoch after it was chosen."""
        came = one.held is None or one.is_serving
        return Own(
            one.provider,
            one.owner,
            one.speed_layer_rows_s,
            one.memory_layers,
            serving=one.held if came else self.old.get(one.provider),
            coming=None if came else one.held,
            ready_epoch=None if came or self.epoch <= one.since_epoch else one.since_epoch + 1,
        )

    def _do(self, one: Holder, step: Step) -> None:
        if step.act is Act.FETCH and step.slice is not None:
            self._fetch(one, step.slice)
            self.counts.moves += 1
            self.counts.reasons[step.why] = self.counts.reasons.get(step.why, 0) + 1
        elif step.act in (Act.SWITCH, Act.GIVE_UP):
            self.counts.given_up += step.act is Act.GIVE_UP
            self.holders[one.provider] = replace(one, held=step.slice, is_serving=step.slice is not None)
            self.old.pop(one.provider, None)

    def _fetch(self, one: Holder, held: Slice) -> None:
        if one.held is not None:
            self.old[one.provider] = one.held
        self.holders[one.provider] = replace(one, held=held, since_epoch=self.epoch, is_serving=False)

    def _leaving_now(self, view: EpochView, leavers: int) -> list[bytes]:
        staying = sorted(set(self.holders) - self.leaving)
        self.leaving |= set(self.rng.sample(staying, min(leavers, len(staying))))
        return [
            provider for provider in sorted(self.leaving) if view.may_leave(self.own(self.holders[provider]))
        ]

    def _crash(self, crashes: int) -> None:
        for provider in self.rng.sample(sorted(self.holders), min(crashes, len(self.holders))):
            self._remove(provider)
            self.counts.crashes += 1

    def _remove(self, provider: bytes) -> None:
        del self.holders[provider]
        self.leaving.discard(provider)
        self.old.pop(provider, None)

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
        """Layers that somebody serves."""
        found: set[int] = set()
        for one in self.serving():
            if one.held is not None:
                found.update(range(one.held.first_layer, one.held.end_layer))
        return found

    def serving(self) -> list[Holder]:
        """Who serves now, with what it serves."""
        at_work = [one for one in self.holders.values() if one.is_serving]
        return at_work + [replace(self.holders[provider], held=old) for provider, old in self.old.items()]

    def weakest_mrows_s(self) -> int:
        """What the weakest layer carries now."""
        return min(layer_rates_mrows_s(self.serving(), self.layers))


def layers_without_holder(world: PlacementWorld) -> list[int]:
    """Layers that nobody serves now."""
    rates = layer_rates_mrows_s(world.serving(), world.layers)
    return [layer for layer, rate in enumerate(rates) if rate == 0]
