"""Saying that a frozen book no longer shows the offers that stand."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol import state_keys
from full_node.state_machine.books import view
from full_node.state_machine.state import Overlay


def mark_stale(state: Overlay, model_name: str) -> None:
    """A model's offers changed after its newest book was frozen."""
    head = view.head(state, model_name)
    if head is not None and not head.stale:
        state.write(state_keys.latest_offer_book(model_name), replace(head, stale=1))


def mark_stale_before(state: Overlay, model_name: str, epoch: int) -> None:
    """Have a model's book frozen anew if its newest one is of an earlier epoch."""
    head = view.head(state, model_name)
    if head is not None and head.epoch < epoch:
        mark_stale(state, model_name)
