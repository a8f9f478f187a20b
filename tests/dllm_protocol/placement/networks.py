"""Networks for hypothesis: any holders at all, and holders that came one after the other."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from dllm_protocol.placement.holders import Holder, PlacementRules
from dllm_protocol.placement.rule import decide
from dllm_protocol.placement.slices import Slice

SEED = b"s" * 32
RULES = PlacementRules(rest_epochs=2, movers_ppm=300_000)


def name(number: int) -> bytes:
    """A provider's or an owner's id."""
    return number.to_bytes(20, "big")


def holder(number: int, first: int, end: int, *, speed: int = 1000, owner: int | None = None) -> Holder:
    """A provider that has served for long, with no more memory than it uses."""
    return Holder(
        name(number), name(number if owner is None else owner), speed, end - first, Slice(first, end)
    )


def newcomer(number: int, memory: int, *, speed: int = 1000, owner: int | None = None) -> Holder:
    """A provider that holds nothing yet."""
    return Holder(name(number), name(number if owner is None else owner), speed, memory)


@st.composite
def slices(draw: st.DrawFn, layers: int) -> Slice:
    first = draw(st.integers(0, layers - 1))
    return Slice(first, draw(st.integers(first + 1, layers)))


@st.composite
def wild_networks(draw: st.DrawFn) -> tuple[int, list[Holder]]:
    """A model's layers, and holders wherever they like: serving, loading or waiting."""
    layers = draw(st.integers(1, 24))
    found = []
    for number in range(draw(st.integers(0, 14))):
        held = draw(st.none() | slices(layers))
        found.append(
            Holder(
                name(number),
                name(draw(st.integers(0, 5))),
                draw(st.integers(1, 5000)),
                draw(st.integers(held.layers if held else 1, layers + 2)),
                held,
                draw(st.integers(0, 10)),
                draw(st.booleans()) if held else True,
            )
        )
    return layers, draw(st.permutations(found))


@st.composite
def grown_networks(draw: st.DrawFn) -> tuple[int, list[Holder]]:
    """Holders that joined one after the other by the rule, each knowing those before it."""
    layers = draw(st.integers(1, 40))
    found: list[Holder] = []
    for number in range(draw(st.integers(1, 16))):
        one = newcomer(
            number,
            draw(st.integers(1, layers + 2)),
            speed=draw(st.integers(1, 5000)),
            owner=draw(st.integers(0, 7)),
        )
        decision = decide(one, found, layers=layers, epoch=0, seed=SEED, rules=RULES)
        if decision.held is not None:
            found.append(replace(one, held=decision.held))
    return layers, found
