"""Which transactions a block gets, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.consensus_params import BLOCK_TX_BYTES_MAX, BLOCK_TXS_MAX, TX_OVERHEAD_BYTES
from dllm_protocol.params import BLOCK_WEIGHT_MAX
from full_node.consensus.cometbft import proposals
from full_node.consensus.cometbft.proposals import (
    fitting,
    order_by_priority,
    reason_to_reject,
)


@dataclass(frozen=True)
class Worth:
    """What a transaction is worth, read from its own bytes: sender, sequence, priority, weight."""

    sender: bytes
    sequence: int
    priority: int
    weight: int


def tx(sender: str, sequence: int, priority: int, weight: int = 1) -> bytes:
    return f"{sender} {sequence} {priority} {weight}".encode()


def appraise(raw: bytes) -> Worth | None:
    parts = raw.split()
    if len(parts) < 4:
        return None
    return Worth(parts[0], int(parts[1]), int(parts[2]), int(parts[3]))


def ordered(*txs: bytes) -> list[bytes]:
    return [raw for raw, _ in order_by_priority(txs, appraise)]


def test_the_best_payer_comes_first_and_ties_go_to_who_came_first() -> None:
    low, high, same = tx("a", 0, 1), tx("b", 0, 9), tx("c", 0, 1)
    assert ordered(low, high, same) == [high, low, same]
    assert ordered(same, high, low) == [high, same, low]


def test_a_sender_stays_in_order_however_well_the_later_one_pays() -> None:
    first, second, other = tx("a", 4, 1), tx("a", 5, 100), tx("b", 0, 2)
    assert ordered(second, first, other) == [other, first, second]


def test_what_is_no_transaction_is_left_out() -> None:
    assert ordered(b"nothing", tx("a", 0, 1)) == [tx("a", 0, 1)]


SENDERS = st.tuples(st.sampled_from("abcd"), st.integers(0, 5), st.integers(0, 9), st.integers(1, 9))


@given(st.lists(SENDERS, max_size=30, unique_by=lambda one: one[:2]))
def test_nothing_is_lost_and_sequences_rise(entries: list[tuple[str, int, int, int]]) -> None:
    txs = [tx(*entry) for entry in entries]
    found = ordered(*txs)
    assert sorted(found) == sorted(txs)
    for sender in "abcd":
        sequences = [int(raw.split()[1]) for raw in found if raw.startswith(sender.encode())]
        assert sequences == sorted(sequences)


def worths(txs: Sequence[bytes]) -> list[tuple[bytes, Worth]]:
    return [(raw, worth) for raw in txs if (worth := appraise(raw)) is not None]


def test_what_does_not_fit_is_left_with_all_that_its_sender_sent_later() -> None:
    big, later, other = tx("a", 0, 9) + b" " * 500, tx("a", 1, 8), tx("b", 0, 1)
    room = len(later) + len(other) + 2 * TX_OVERHEAD_BYTES
    assert fitting(worths([big, later, other]), room) == [other]
    assert fitting(worths([later, other]), room) == [later, other]


def test_weight_and_count_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy, light = tx("a", 0, 9, BLOCK_WEIGHT_MAX), tx("b", 0, 1)
    assert fitting(worths([heavy, light]), 1000) == [heavy]
    monkeypatch.setattr(proposals, "BLOCK_TXS_MAX", 1)
    assert fitting(worths([light, tx("c", 0, 1)]), 1000) == [light]


def test_a_block_is_rejected_for_size_count_weight_or_nonsense() -> None:
    good = tx("a", 0, 1)
    assert reason_to_reject([good], appraise) == ""
    assert "is none" in reason_to_reject([good, b"nothing"], appraise)
    assert "bytes of transactions" in reason_to_reject([bytes(BLOCK_TX_BYTES_MAX)], appraise)
    assert "transactions, at most" in reason_to_reject([good] * (BLOCK_TXS_MAX + 1), appraise)
    assert "weight" in reason_to_reject([tx("a", 0, 1, BLOCK_WEIGHT_MAX), good], appraise)


@given(st.lists(SENDERS, max_size=30, unique_by=lambda one: one[:2]), st.integers(0, 300))
def test_what_this_node_proposes_it_would_accept(entries: list[tuple[str, int, int, int]], room: int) -> None:
    chosen = fitting(order_by_priority([tx(*entry) for entry in entries], appraise), room)
    assert reason_to_reject(chosen, appraise) == ""
    assert sum(len(raw) + TX_OVERHEAD_BYTES for raw in chosen) <= room
