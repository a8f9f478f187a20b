"""What one session owes and to whom, in memory and on disk."""

from __future__ import annotations

from dataclasses import replace

from dllm_chat.dispatch.sessions import Sessions
from dllm_chat.session.receipts import cost_between
from dllm_chat.session.saved import SavedSession
from dllm_protocol.session.ledger import Ledger
from dllm_protocol.voucher import SignedVoucher


class SessionBook:
    """A session as it is saved, and the ledger of its promises."""

    def __init__(self, sessions: Sessions, saved: SavedSession) -> None:
        self.saved = saved
        self.ledger: Ledger = sessions.ledger(saved)
        self._store = sessions.store

    def store_promises(self) -> None:
        """Write the session where a voucher or an ack is new; called before anything is sent on its strength.

        Rows used since then are not written one by one: after a crash the provider's own count of them is taken over.
        """
        old, new = self.saved.ledger, self.ledger.state
        if old.last_voucher is not new.last_voucher or old.acks is not new.acks:
            self.store()

    def store(self) -> None:
        """Write the session where it changed."""
        if self.saved.ledger is not self.ledger.state:
            self.saved = replace(self.saved, ledger=self.ledger.state)
            self._store.save(self.saved)

    def topped_up(self, saved: SavedSession) -> None:
        """The session with a larger deposit."""
        self.saved = saved
        self.ledger.deposit_udllm = saved.deposit_udllm

    def cost_since(self, before: SignedVoucher | None) -> int:
        """What vouchers came to since an earlier one, for the client, in udllm."""
        after = self.ledger.state.last_voucher
        if after is None:
            return 0
        return cost_between(before.voucher if before else None, after.voucher, self.saved.community_share_ppm)

    def abandon(self, provider: bytes) -> None:
        """The provider failed, and is owed no more than it acknowledged."""
        self.ledger.abandon(provider)
        failed = tuple(sorted({*self.saved.failed, provider}))
        self.saved = replace(self.saved, failed=failed, ledger=self.ledger.state)
        self._store.save(self.saved)
