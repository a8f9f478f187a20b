"""The mempool: bounds, doubles, gaps that are waited for, and what happens after a block."""

from __future__ import annotations

import pytest

from dllm_protocol.refusals import MalformedTransaction, SequenceGap, WrongSequence
from full_node.consensus.engine import Submission
from full_node.consensus.mempool import Mempool, MempoolLimits, MempoolRefused
from tests.full_node.doubles import Checked, NotesApplication, note

MS = 1_000_000


class Pool:
    """A mempool with the state that its application reads."""

    def __init__(self, limits: MempoolLimits | None = None) -> None:
        self.state: dict[bytes, bytes] = {}
        self.application = NotesApplication(self.state.get)
        self.pool = Mempool(self.application.check_tx, limits)
        self.said: list[int] = []

    def add(self, raw: bytes, now_ms: int = 0) -> None:
        self.pool.add(raw, now_ms * MS, lambda outcome: self.said.append(outcome.code))

    def commit(self, raws: list[bytes], now_ms: int = 0) -> None:
        outcome = self.application.finalize_block(None, raws)  # type: ignore[arg-type]  # the double does not look
        for key, value in outcome.changes.items():
            if value is not None:
                self.state[key] = value
        self.application.note_committed(1, 0)
        self.pool.update(raws, now_ms * MS)


def test_arrival_order_is_kept_and_bounded_by_count_and_bytes() -> None:
    pool = Pool()
    raws = [note("a", n, "k", str(n)) for n in range(5)]
    for raw in raws:
        pool.add(raw)
    assert pool.pool.reap(10_000, 100, 1000) == raws
    assert pool.pool.reap(10_000, 2, 1000) == raws[:2]
    assert pool.pool.reap(len(raws[0]) * 3, 100, 1000) == raws[:3]
    assert pool.pool.reap(10_000, 100, 7) == raws[:3]
    assert pool.pool.reap(1, 100, 1) == raws[:1], "nothing may block the queue for ever"
    view = pool.pool.view(2)
    assert (list(view.txs), view.count, view.total_bytes) == (raws[:2], 5, sum(map(len, raws)))


def test_doubles_are_refused_also_after_their_block() -> None:
    pool = Pool()
    raw = note("a", 0, "k", "v")
    pool.add(raw)
    with pytest.raises(MempoolRefused, match="already exists in cache"):
        pool.add(raw)
    pool.commit([raw])
    assert len(pool.pool) == 0
    with pytest.raises(MempoolRefused, match="already exists in cache"):
        pool.add(raw)


def test_what_check_tx_refuses_may_come_again() -> None:
    pool = Pool()
    for _ in range(2):
        pool.add(b"nonsense")
    assert pool.said == [MalformedTransaction.abci_code] * 2
    assert len(pool.pool) == 0


def test_limits_are_named() -> None:
    pool = Pool(MempoolLimits(count=2, total_bytes=40, tx_bytes=30))
    with pytest.raises(MempoolRefused, match="Max size is 30, but got 31"):
        pool.add(bytes(31))
    pool.add(note("a", 0, "k", "v" * 15))
    with pytest.raises(MempoolRefused, match="mempool is full: number of txs 1"):
        pool.add(note("a", 1, "k", "v" * 15))
    pool.add(note("a", 1, "k", "v"))
    with pytest.raises(MempoolRefused, match=r"txs 2 \(max: 2\)"):
        pool.add(note("a", 2, "k", "v"))


def test_a_gap_waits_until_it_is_filled() -> None:
    pool = Pool()
    later = [note("a", n, "k", "v") for n in (3, 1, 2)]
    for raw in later:
        pool.add(raw)
    assert (pool.said, pool.pool.waiting_count, len(pool.pool)) == ([], 3, 0)
    pool.add(note("a", 0, "k", "v"), 100)
    assert pool.said == [0, 0, 0, 0]
    assert pool.pool.reap(10_000, 10, 1000) == [note("a", n, "k", "v") for n in range(4)]


def test_a_gap_may_be_filled_by_a_block() -> None:
    pool = Pool()
    pool.add(note("a", 1, "k", "v"))
    pool.commit([note("a", 0, "k", "other terminal's")], 100)
    assert pool.said == [0]
    assert len(pool.pool) == 1


def test_a_gap_that_nobody_fills_is_refused_in_time() -> None:
    pool = Pool()
    pool.add(note("a", 5, "k", "v"), 0)
    assert pool.pool.next_deadline_ns() == 2000 * MS
    pool.pool.expire(1999 * MS)
    assert pool.said == []
    pool.pool.expire(2000 * MS)
    assert pool.said == [SequenceGap.abci_code]
    assert pool.pool.next_deadline_ns() is None
    pool.add(note("a", 5, "k", "v"), 3000)
    pool.pool.settle_all()
    assert pool.said == [SequenceGap.abci_code] * 2


def test_waiting_is_bounded_by_sender_and_in_all() -> None:
    pool = Pool(MempoolLimits(waiting_count=4, waiting_per_sender=2))
    for sequence in (5, 6, 7):
        pool.add(note("a", sequence, "k", "v"))
    assert pool.said == [SequenceGap.abci_code]
    pool.add(note("a", 5, "k", "another with the same sequence"))
    assert pool.said == [SequenceGap.abci_code] * 2
    for sender in "bcd":
        pool.add(note(sender, 9, "k", "v"))
    assert pool.pool.waiting_count == 4
    assert pool.said == [SequenceGap.abci_code] * 3


def test_a_block_drops_what_became_invalid_and_keeps_the_rest() -> None:
    pool = Pool()
    mine = [note("a", 0, "k", "1"), note("a", 1, "k", "2"), note("b", 0, "k", "3")]
    for raw in mine:
        pool.add(raw)
    pool.commit([note("a", 0, "k", "from elsewhere")])
    assert pool.pool.reap(10_000, 10, 1000) == mine[1:]
    pool.commit([note("a", 1, "k", "from elsewhere")])
    assert pool.pool.reap(10_000, 10, 1000) == mine[2:]
    pool.add(mine[1])
    assert pool.said[-1] == WrongSequence.abci_code


def test_nothing_waits_for_ever() -> None:
    pool = Pool(MempoolLimits(ttl_ms=1000))
    pool.add(note("a", 0, "k", "v"))
    pool.commit([], 1000)
    assert len(pool.pool) == 1
    pool.commit([], 1001)
    assert len(pool.pool) == 0
    assert pool.pool.view(1).total_bytes == 0


def test_the_memory_of_doubles_is_bounded() -> None:
    pool = Pool(MempoolLimits(seen_count=2))
    raws = [note("a", n, "k", "v") for n in range(3)]
    for raw in raws:
        pool.add(raw)
    pool.commit(raws)
    outcomes: list[Submission] = []
    pool.pool.add(raws[0], 0, outcomes.append)
    assert outcomes[0].code == WrongSequence.abci_code


class Weighing:
    """An application that takes everything, at a weight that its state says."""

    def __init__(self) -> None:
        self.weight = 1

    def check_tx(self, raw: bytes) -> Checked:
        return Checked(0, gas_wanted=self.weight)


def test_what_waits_weighs_after_a_block_what_the_state_says_then() -> None:
    application = Weighing()
    pool = Mempool(application.check_tx)
    raws = [b"first", b"second", b"third"]
    for raw in raws:
        pool.add(raw, 0, lambda _outcome: None)
    assert pool.reap(1_000, 10, 3) == raws
    application.weight = 2
    pool.update((), 0)
    assert pool.reap(1_000, 10, 3) == raws[:1]
