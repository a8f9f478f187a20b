"""What waits for the next block, as CheckTx sees it: each account's transactions after its own, and after no other's.

CheckTx is asked about transactions that never come, too: CometBFT's RPC lets strangers ask, and does not say so. Were
all of them judged on one state, whoever asks about an OpenSession without handing it in would take the room of an offer
in the eyes of that node. So every account has a state of its own over the newest one. Whether it can pay its fees in
order depends on nobody else: only its own transactions take from it.
"""

from __future__ import annotations

from full_node.state_machine.state import Overlay

CHANGES_MAX = 1 << 15
"""Changed keys that are kept between two blocks, some for each of the 5,000 transactions of a full mempool; what comes
then is judged as well and not built upon. A record takes a few kilobytes at most, for lists share their elements.
"""
BYTES_MAX = 64 << 20
"""Most bytes of what was written as bytes: a route names every offer that was full, up to 300 kB of them."""


class Waiting:
    """The states of accounts that wait, over one newest state. Every transaction is tried before it is kept."""

    def __init__(
        self, newest: Overlay, *, changes_max: int = CHANGES_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        self.newest = newest
        """The state that the next block is built on; what is decoded from it is kept for all accounts."""
        self._changes_max = changes_max
        self._changes = 0
        self._bytes_max = bytes_max
        self._bytes = 0
        self._states: dict[bytes, Overlay] = {}

    def state_of(self, account: bytes) -> Overlay:
        """The newest state after everything that the account waits with."""
        return self._states.get(account, self.newest)

    def trial(self, account: bytes) -> Overlay:
        """A state to run a transaction of the account on; nothing of it stays unless `keep` is told so."""
        return Overlay(self._states.get(account) or Overlay(self.newest))

    def keep(self, account: bytes, trial: Overlay) -> bool:
        """Has the account's next transactions judged after this one; False where there is no more room for that."""
        changes, size_bytes = self._changes + trial.changed_keys, self._bytes + trial.bytes_written
        if changes > self._changes_max or size_bytes > self._bytes_max:
            return False
        self._changes, self._bytes = changes, size_bytes
        self._states[account] = trial.merge()
        return True
