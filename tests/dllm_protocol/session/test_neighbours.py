"""Whom a client may put beside a stage: only who has the layers for it by the session's route."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import FORM_ANY, FORM_BF16
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.session.orders import StandBetween
from dllm_protocol.session.provider import Terms
from tests.dllm_protocol.session.test_channel import Pair, entry, make_pair

CUTS = ((0, 2), (2, 3), (3, 4))
FIRST, FIRST_STANDBY, MIDDLE, MIDDLE_STANDBY, LAST, LAST_STANDBY = (entry(n).provider for n in range(1, 7))
STRANGER = entry(9).provider


def layers_of(number: int, first_layer: int, end_layer: int) -> BookEntry:
    return replace(entry(number), first_layer=first_layer, end_layer=end_layer)


def legs(cuts: tuple[tuple[int, int], ...] = CUTS) -> dict[bytes, BookEntry]:
    """Of a route with these stages: two providers for each."""
    made = (layers_of(1 + 2 * index + n, *cut) for index, cut in enumerate(cuts) for n in (0, 1))
    return {one.provider: one for one in made}


def pair_of(own: bytes) -> Pair:
    """A channel to one provider of the route of three stages."""
    pair = make_pair()
    pair.provider.terms = terms_of(own, legs())
    return pair


def terms_of(own: bytes, route: dict[bytes, BookEntry]) -> Terms:
    return replace(make_pair().provider.terms, entry=route[own], legs=route)


@pytest.mark.parametrize(
    ("own", "previous", "behind", "ring"),
    [
        (FIRST, b"", MIDDLE, LAST),
        (FIRST, b"", MIDDLE_STANDBY, LAST_STANDBY),
        (FIRST_STANDBY, b"", MIDDLE, LAST),
        (FIRST, b"", MIDDLE, b""),
        (MIDDLE, FIRST, LAST, b""),
        (LAST, MIDDLE, b"", FIRST),
        (LAST, MIDDLE, b"", FIRST_STANDBY),
        (LAST_STANDBY, MIDDLE_STANDBY, b"", FIRST),
        (LAST, MIDDLE, b"", b""),
    ],
)
def test_a_place_in_the_route_is_taken(own: bytes, previous: bytes, behind: bytes, ring: bytes) -> None:
    pair = pair_of(own)
    orders = pair.deliver(pair.client.neighbours(1, previous, behind, FORM_BF16, ring))
    assert orders == [StandBetween(1, previous, behind, FORM_BF16, ring)]


def test_who_names_no_ring_asks_for_none() -> None:
    pair = pair_of(FIRST)
    assert pair.deliver(pair.client.neighbours(1, b"", MIDDLE, FORM_ANY)) == [
        StandBetween(1, b"", MIDDLE, FORM_ANY, b"")
    ]


PLACES = {FIRST: (b"", MIDDLE), MIDDLE: (FIRST, LAST), LAST: (MIDDLE, b"")}


@pytest.mark.parametrize(
    ("own", "ring"),
    [
        (FIRST, MIDDLE),
        (FIRST, FIRST_STANDBY),
        (FIRST, FIRST),
        (FIRST, STRANGER),
        (MIDDLE, FIRST),
        (MIDDLE, LAST),
        (MIDDLE, MIDDLE_STANDBY),
        (MIDDLE, STRANGER),
        (LAST, MIDDLE),
        (LAST, LAST_STANDBY),
        (LAST, LAST),
        (LAST, STRANGER),
    ],
)
def test_a_ring_that_joins_other_layers_than_the_last_and_the_first_is_refused(
    own: bytes, ring: bytes
) -> None:
    previous, behind = PLACES[own]
    pair = pair_of(own)
    with pytest.raises(ChannelRefused, match="a ring goes from a provider of the last layers to one of the"):
        pair.deliver(pair.client.neighbours(1, previous, behind, FORM_ANY, ring))
    # It was for the ring alone: without it the same line stands.
    assert pair.deliver(pair.client.neighbours(1, previous, behind, FORM_ANY)) == [
        StandBetween(1, previous, behind, FORM_ANY)
    ]


@pytest.mark.parametrize(
    ("own", "previous", "behind", "which"),
    [
        (FIRST, LAST, MIDDLE, "before"),  # the last one tells the first, and stands before nobody
        (MIDDLE, b"", LAST, "before"),
        (MIDDLE, LAST, LAST, "before"),
        (MIDDLE, STRANGER, LAST, "before"),
        (LAST, FIRST, b"", "before"),
        (MIDDLE, FIRST, FIRST, "behind"),
        (MIDDLE, FIRST, STRANGER, "behind"),
        (LAST, MIDDLE, FIRST, "behind"),
    ],
)
def test_who_has_no_layers_right_before_or_behind_is_refused(
    own: bytes, previous: bytes, behind: bytes, which: str
) -> None:
    pair = pair_of(own)
    with pytest.raises(ChannelRefused, match=f"the stage {which} is not one of the route's for the layers"):
        pair.deliver(pair.client.neighbours(1, previous, behind, FORM_ANY))


def test_a_line_of_an_older_number_is_refused() -> None:
    pair = pair_of(LAST)
    pair.deliver(pair.client.neighbours(2, MIDDLE, b"", FORM_ANY, FIRST))
    for number in (1, 2):
        with pytest.raises(ChannelRefused, match=f"line {number} came after line 2"):
            pair.deliver(pair.client.neighbours(number, MIDDLE, b"", FORM_ANY, FIRST))


@pytest.mark.parametrize("cuts", [CUTS, ((0, 2), (2, 4))], ids=["three stages", "two stages"])
def test_a_ring_is_closed_by_a_provider_of_the_first_layers_and_one_of_the_last(
    cuts: tuple[tuple[int, int], ...],
) -> None:
    """Either of the two may be asked: both come to the same."""
    route = legs(cuts)
    firsts, lasts = list(route)[:2], list(route)[-2:]
    wanted = {(first, last) for first in firsts for last in lasts}
    wanted |= {(last, first) for first, last in wanted}
    closed = {pair for pair in permutations(route, 2) if terms_of(pair[0], route).closes_ring(pair[1])}
    assert closed == wanted


@pytest.mark.parametrize("cuts", [CUTS, ((0, 4),)], ids=["three stages", "one stage"])
def test_nobody_closes_a_ring_with_itself_or_with_a_stranger(cuts: tuple[tuple[int, int], ...]) -> None:
    """Not even who has the first layers and the last."""
    route = legs(cuts)
    for own in route:
        terms = terms_of(own, route)
        assert not any(map(terms.closes_ring, (own, STRANGER, b"")))
