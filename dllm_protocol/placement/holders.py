"""What placement knows of a provider, and the numbers of its rules. All are whole numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dllm_protocol.errors import UsageRefused
from dllm_protocol.model_manifest import MAX_LAYERS
from dllm_protocol.offer_book import MAX_ENTRIES
from dllm_protocol.placement.slices import Slice

MAX_SPEED_LAYER_ROWS_S = 1 << 40
PPM = 1_000_000


class PlacementRefused(UsageRefused):
    """What placement was asked about cannot be: a slice outside the model, a provider named twice."""

    code = "E_PLACEMENT"


@dataclass(frozen=True, slots=True)
class Holder:
    """A provider that serves a model, loads a slice of it, or waits for one."""

    provider: bytes
    owner: bytes
    speed_layer_rows_s: int
    """Rows a second through one layer; through k layers it is one k-th."""
    memory_layers: int
    """The most layers that it can hold."""
    held: Slice | None = None
    """Where it serves; None while it waits."""
    since_epoch: int = 0
    """When it took that slice."""
    is_serving: bool = True
    """False while it still loads: it counts as throughput to come, and is no copy to rely on."""


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """How placement is damped. Everybody in a network must use the same numbers."""

    copies: int = 2
    """Owners that shall hold each layer: one that serves, and a standby of another owner."""
    gain_ppm: int = 50_000
    """A provider moves only from where, without it, every layer has this share more than the weakest one."""
    rest_epochs: int = 6
    """So long it stays where it went, before it moves to even things out."""
    movers_ppm: int = 20_000
    """Share of the providers that may move in one epoch; at least one may."""
    least_layers: int = 1
    """No slice is smaller than this, so that routes stay short; who has less memory cannot help. It is at least what
    an offer must hold (`ranked_book.least_slice`)."""

    def __post_init__(self) -> None:
        if not (
            self.copies >= 1
            and self.gain_ppm >= 1
            and self.rest_epochs >= 0
            and 0 <= self.movers_ppm <= PPM
            and 1 <= self.least_layers <= MAX_LAYERS
        ):
            raise PlacementRefused(
                f"no rules of placement: {self}", hint="copies and least_layers begin at 1"
            )


def check_holders(holders: Iterable[Holder], layers: int) -> tuple[Holder, ...]:
    """Holders ascending by provider.

    Raises:
        PlacementRefused: naming the provider and what is wrong with it.
    """
    if not 1 <= layers <= MAX_LAYERS:
        raise PlacementRefused(f"a model of {layers} layers; 1 to {MAX_LAYERS} are possible")
    ordered = tuple(sorted(holders, key=lambda one: one.provider))
    if len(ordered) > MAX_ENTRIES:
        raise PlacementRefused(f"{len(ordered)} holders of one model; at most {MAX_ENTRIES} are counted")
    before: bytes | None = None
    for one in ordered:
        name = one.provider.hex()
        if one.provider == before:
            raise PlacementRefused(
                f"provider {name} is named twice", hint="a provider holds one slice a model"
            )
        if not 1 <= one.speed_layer_rows_s <= MAX_SPEED_LAYER_ROWS_S or one.memory_layers < 1:
            raise PlacementRefused(
                f"provider {name} has speed {one.speed_layer_rows_s} and memory for {one.memory_layers} layers",
                hint="both begin at 1",
            )
        if one.held is not None and not 0 <= one.held.first_layer < one.held.end_layer <= layers:
            raise PlacementRefused(
                f"provider {name} holds layers {one.held.first_layer}:{one.held.end_layer} of a model of {layers}"
            )
        before = one.provider
    return ordered
