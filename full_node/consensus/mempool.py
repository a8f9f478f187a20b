"""Transactions that wait for a block: bounded, without doubles, in the order of arrival.

A transaction whose sequence is ahead of its account's is held for a moment instead of failing, because two
terminals that share one wallet may hand theirs in swapped. Synchronous, and used by one thread; time is
given with every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

from dllm_protocol.errors import TransactionRefused
from dllm_protocol.refusals import SequenceGap
from full_node.consensus.engine import CheckResult, MempoolView, Submission

NS_PER_MS = 1_000_000


class MempoolRefused(TransactionRefused):
    """The mempool itself will not take a transaction: full, too large, or there already."""

    code = "E_MEMPOOL"


@dataclass(frozen=True, slots=True)
class MempoolLimits:
    """Bounds; counts of transactions, bytes, milliseconds."""

    count: int = 10_000
    total_bytes: int = 64 << 20
    tx_bytes: int = 128 << 10
    waiting_count: int = 256
    waiting_per_sender: int = 32
    gap_wait_ms: int = 2_000
    ttl_ms: int = 600_000
    seen_count: int = 65_536


Settle = Callable[[Submission], None]


@dataclass(slots=True)
class _Pending:
    raw: bytes
    arrived_ns: int
    gas: int


@dataclass(slots=True)
class _Waiting:
    raw: bytes
    refusal: CheckResult
    deadline_ns: int
    settle: Settle


class Mempool:
    """The pool of one node."""

    def __init__(self, check: Callable[[bytes], CheckResult], limits: MempoolLimits | None = None) -> None:
        """`check` is the application's CheckTx."""
        self._check = check
        self.limits = limits or MempoolLimits()
        self._pending: OrderedDict[bytes, _Pending] = OrderedDict()
        self._bytes = 0
        self._waiting: dict[bytes, dict[int, _Waiting]] = {}
        self._waiting_count = 0
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting_count(self) -> int:
        """How many are held because of a sequence gap."""
        return self._waiting_count

    def add(self, raw: bytes, now_ns: int, settle: Settle) -> None:
        """Takes a transaction in, or refuses it; `settle` is told what CheckTx said, perhaps later.

        Raises:
            MempoolRefused: not even looked at: too large, a double, or no room.
        """
        name = sha256(raw).digest()
        self._admit(name, raw)
        self._remember(name)
        self._examine(name, raw, now_ns, settle)

    def reap(self, max_bytes: int, max_count: int, max_gas: int) -> list[bytes]:
        """The oldest transactions that fit; they stay until `update`. The first always fits."""
        taken: list[bytes] = []
        size = gas = 0
        for entry in self._pending.values():
            size += len(entry.raw)
            gas += entry.gas
            if taken and (len(taken) >= max_count or size > max_bytes or gas > max_gas):
                break
            taken.append(entry.raw)
        return taken

    def update(self, committed: Iterable[bytes], now_ns: int) -> None:
        """Drops what a block took, then checks the rest again from the new state, in order."""
        for raw in committed:
            name = sha256(raw).digest()
            self._drop(name)
            self._remember(name)
        for name, entry in list(self._pending.items()):
            expired = now_ns - entry.arrived_ns > self.limits.ttl_ms * NS_PER_MS
            if expired or (result := self._check(entry.raw)).code != 0:
                self._drop(name)
                self._seen.pop(name, None)
            else:
                entry.gas = (
                    result.gas_wanted
                )  # it grows with the offer book, which the block may have frozen anew
        for sender in list(self._waiting):
            self._retry(sender, now_ns)

    def expire(self, now_ns: int) -> None:
        """Gives up on gaps that nobody filled in time."""
        for sender in list(self._waiting):
            for sequence, entry in list(self._waiting[sender].items()):
                if entry.deadline_ns <= now_ns:
                    self._unhold(sender, sequence)
                    self._refuse(entry)

    def next_deadline_ns(self) -> int | None:
        """When the next held transaction gives up."""
        deadlines = [entry.deadline_ns for held in self._waiting.values() for entry in held.values()]
        return min(deadlines, default=None)

    def view(self, limit: int) -> MempoolView:
        """The oldest pending transactions, at most `limit`."""
        some = [entry.raw for entry, _ in zip(self._pending.values(), range(limit), strict=False)]
        return MempoolView(some, len(self._pending), self._bytes)

    def settle_all(self) -> None:
        """Tells everybody who still waits that the gap was not filled; for shutdown."""
        for sender in list(self._waiting):
            for sequence, entry in list(self._waiting[sender].items()):
                self._unhold(sender, sequence)
                self._refuse(entry)

    def _admit(self, name: bytes, raw: bytes) -> None:
        limits = self.limits
        if len(raw) > limits.tx_bytes:
            raise MempoolRefused(f"Tx too large. Max size is {limits.tx_bytes}, but got {len(raw)}")
        if name in self._seen:
            raise MempoolRefused("tx already exists in cache", hint="look it up by its hash")
        if len(self._pending) >= limits.count or self._bytes + len(raw) > limits.total_bytes:
            raise MempoolRefused(
                f"mempool is full: number of txs {len(self._pending)} (max: {limits.count}), "
                f"total txs bytes {self._bytes} (max: {limits.total_bytes})",
                hint="try again in a moment",
            )

    def _examine(self, name: bytes, raw: bytes, now_ns: int, settle: Settle) -> None:
        result = self._check(raw)
        if result.code == 0:
            self._pending[name] = _Pending(raw, now_ns, result.gas_wanted)
            self._bytes += len(raw)
            settle(Submission(name, 0, result.log, result.codespace))
            self._retry(result.sender, now_ns)
        elif result.code == SequenceGap.abci_code and self._hold(raw, result, now_ns, settle):
            return
        else:
            # Not kept in mind: it may become valid, e.g. when the account is funded.
            self._seen.pop(name, None)
            settle(Submission(name, result.code, result.log, result.codespace))

    def _hold(self, raw: bytes, refusal: CheckResult, now_ns: int, settle: Settle) -> bool:
        held = self._waiting.get(refusal.sender, {})
        full = self._waiting_count >= self.limits.waiting_count or len(held) >= self.limits.waiting_per_sender
        if full or refusal.sequence in held:
            return False
        deadline_ns = now_ns + self.limits.gap_wait_ms * NS_PER_MS
        self._waiting.setdefault(refusal.sender, {})[refusal.sequence] = _Waiting(
            raw, refusal, deadline_ns, settle
        )
        self._waiting_count += 1
        return True

    def _retry(self, sender: bytes, now_ns: int) -> None:
        """Looks again at what a sender has waiting, lowest sequence first, as long as that helps."""
        while held := self._waiting.get(sender):
            sequence = min(held)
            entry = held[sequence]
            result = self._check(entry.raw)
            if result.code == SequenceGap.abci_code:
                return
            self._unhold(sender, sequence)
            name = sha256(entry.raw).digest()
            if result.code == 0:
                self._pending[name] = _Pending(entry.raw, now_ns, result.gas_wanted)
                self._bytes += len(entry.raw)
            else:
                self._seen.pop(name, None)
            entry.settle(Submission(name, result.code, result.log, result.codespace))

    def _unhold(self, sender: bytes, sequence: int) -> None:
        del self._waiting[sender][sequence]
        self._waiting_count -= 1
        if not self._waiting[sender]:
            del self._waiting[sender]

    def _refuse(self, entry: _Waiting) -> None:
        name = sha256(entry.raw).digest()
        self._seen.pop(name, None)
        entry.settle(Submission(name, entry.refusal.code, entry.refusal.log, entry.refusal.codespace))

    def _drop(self, name: bytes) -> None:
        entry = self._pending.pop(name, None)
        if entry is not None:
            self._bytes -= len(entry.raw)

    def _remember(self, name: bytes) -> None:
        self._seen[name] = None
        self._seen.move_to_end(name)
        while len(self._seen) > self.limits.seen_count:
            self._seen.popitem(last=False)
