"""Everything that reads what a stranger wrote."""

from __future__ import annotations

from functools import cache

from tests.fuzz import abci, carried, chat, light, models, node, protocol, records, remote, worker
from tests.fuzz.decoder import Decoder


@cache
def decoders() -> tuple[Decoder, ...]:
    """All decoders of the five packages, by name."""
    found = [
        one
        for part in (protocol, records, light, node, abci, worker, remote, models, chat, carried)
        for one in part.decoders()
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def rooms() -> dict[str, list[Decoder]]:
    """The decoders by room."""
    made: dict[str, list[Decoder]] = {}
    for one in decoders():
        made.setdefault(one.room, []).append(one)
    return made
