"""A frozen holder book as placement reads it."""

from __future__ import annotations

from dllm_protocol.holder_book import HolderBook, HolderEntry
from dllm_protocol.placement.holders import Holder
from dllm_protocol.placement.slices import Slice


def holders_of(book: HolderBook, epoch: int) -> tuple[Holder, ...]:
    """Everyone in a holder book, ascending by provider.

    Who offers layers and never said how fast it is counts with the median of what the others said (the lower of two; 1
    where nobody did), with memory for just its slice, and as one that came this epoch, so that it is given no turn.
    """
    usual = usual_speed(book) or 1
    return tuple(_holder(one, usual, epoch) for one in book.entries)


def _holder(one: HolderEntry, usual_speed: int, epoch: int) -> Holder:
    held = Slice(one.first_layer, one.end_layer) if one.end_layer else None
    spoke = one.speed_layer_rows_s > 0
    return Holder(
        provider=one.provider,
        owner=one.owner,
        speed_layer_rows_s=one.speed_layer_rows_s or usual_speed,
        memory_layers=one.memory_layers or (held.layers if held else 1),
        held=held,
        since_epoch=one.since_epoch if spoke else epoch,
        is_serving=bool(one.is_serving),
    )


def usual_speed(book: HolderBook) -> int:
    """The median of what holders say of their speed, the lower of two; 0 where nobody says anything."""
    said = sorted(one.speed_layer_rows_s for one in book.entries if one.speed_layer_rows_s)
    return said[(len(said) - 1) // 2] if said else 0
