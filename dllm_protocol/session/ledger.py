"""The client's promises in one session: which voucher covers which rows of which leg.

Promises are made ahead by at most one window, so that at any instant the largest loss of the client is what it
promised and did not get: one window. The state is a record; whoever holds the ledger stores it *before* a voucher
leaves the machine, so that no crash makes the client sign two vouchers with one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dllm_protocol.assignment import leg_entries, leg_payees, route_hash
from dllm_protocol.encoding import (
    ADDRESS,
    HASH,
    OPTIONAL_HASH,
    U64,
    ListOf,
    Nested,
    Optional,
    Record,
    record,
    wire,
)
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import NO_ROWS, RowCounts, client_price, cost_of_rows
from dllm_protocol.records import Route
from dllm_protocol.session.transcript import NO_TRANSCRIPT
from dllm_protocol.signing import Signer
from dllm_protocol.voucher import (
    FINAL_N,
    MAX_LEGS,
    SignedAck,
    SignedVoucher,
    Voucher,
    VoucherLeg,
    sign_voucher,
)

WINDOW_PROMPT_ROWS = 256
WINDOW_KEPT_ROWS = 16
WINDOW_DRAFTED_ROWS = 16
MAX_UNACKNOWLEDGED = 64
"""Acks are taken for this many of the newest vouchers a stage: requests in a row may bring vouchers before the first
ack, and each stage has vouchers of its own."""


class DepositUsedUp(ChannelRefused):
    """The next window would cost more than the deposit holds.

    Attributes:
        needed_udllm: what the deposit would have to be.
    """

    code = "E_DEPOSIT"
    exit_code = 5

    def __init__(self, needed_udllm: int, deposit_udllm: int) -> None:
        super().__init__(
            f"the session needs a deposit of {needed_udllm} udllm, it has {deposit_udllm}",
            hint="top the session up, or close it and open another",
        )
        self.needed_udllm = needed_udllm


@record
class LegState(Record):
    """One leg's accounts."""

    provider: bytes = wire(1, ADDRESS)
    promised: RowCounts = wire(2, Nested(RowCounts))
    """Rows that vouchers cover."""
    used: RowCounts = wire(3, Nested(RowCounts))
    """Rows that were asked for."""
    acked: RowCounts = wire(4, Nested(RowCounts))
    """Rows covered by the last voucher that the provider acknowledged."""
    most: RowCounts = wire(5, Nested(RowCounts))
    """The most that any voucher ever covered: its provider may claim them whatever later ones say."""


@record
class LedgerState(Record):
    """Everything that must survive a crash."""

    session: bytes = wire(1, HASH)
    n: int = wire(2, U64)
    legs: tuple[LegState, ...] = wire(3, ListOf(Nested(LegState), MAX_LEGS))
    """Ascending by provider; legs that were never used are absent."""
    transcript: bytes = wire(4, OPTIONAL_HASH)
    last_voucher: SignedVoucher | None = wire(5, Optional(SignedVoucher))
    acks: tuple[SignedAck, ...] = wire(6, ListOf(Nested(SignedAck), MAX_LEGS))
    """The newest ack of each leg, ascending by provider."""


def fresh_state(session: bytes) -> LedgerState:
    """A session in which nothing was promised yet."""
    return LedgerState(session, 0, (), b"", None, ())


class Ledger:
    """Signs vouchers for one session. `state` is to be stored whenever it changed, before anything is sent."""

    def __init__(
        self,
        *,
        chain_id: str,
        route: Route,
        session_key: Signer,
        deposit_udllm: int,
        community_share_ppm: int,
        state: LedgerState,
    ) -> None:
        self._chain_id = chain_id
        self._session_key = session_key
        self._community_share_ppm = community_share_ppm
        self._route_hash = route_hash(route)
        self._entries = leg_entries(route)
        self._most_unacknowledged = MAX_UNACKNOWLEDGED * len(route.stages)
        self.deposit_udllm = deposit_udllm
        self.state = state
        last = state.last_voucher
        self._signed: dict[int, Voucher] = {last.voucher.n: last.voucher} if last else {}

    @property
    def payments_udllm(self) -> int:
        """What the vouchers signed so far promise to owners."""
        voucher = self.state.last_voucher
        return voucher.voucher.payments_udllm if voucher else 0

    @property
    def spent_udllm(self) -> int:
        """What the vouchers signed so far cost the client."""
        return client_price(self.payments_udllm, self._community_share_ppm)

    @property
    def transcript(self) -> bytes:
        """Transcript of the last voucher; zeros before the first."""
        return self.state.transcript or NO_TRANSCRIPT

    def leg(self, provider: bytes) -> LegState:
        """The accounts of one leg."""
        for leg in self.state.legs:
            if leg.provider == provider:
                return leg
        return LegState(provider, NO_ROWS, NO_ROWS, NO_ROWS, NO_ROWS)

    def use(self, provider: bytes, rows: RowCounts, transcript: bytes) -> SignedVoucher | None:
        """Account for rows about to be asked for; return the voucher that must go before them, if any.

        Args:
            rows: how the request counts, see `dllm_protocol.session.rows.charged`.
            transcript: the transcript before these rows.

        Raises:
            DepositUsedUp: nothing was changed.
        """
        leg = self.leg(provider)
        used = leg.used.plus(rows)
        if leg.promised.covers(used):
            self._put(replace(leg, used=used))
            return None
        promised = _promise(leg, used, rows)
        voucher = self._voucher(replace(leg, promised=promised), transcript)
        self._put(replace(leg, used=used, promised=promised, most=promised.more_of(leg.most)))
        self._note(voucher)
        return voucher

    def require_room(self, wanted: Mapping[bytes, RowCounts]) -> None:
        """Refuse rows of several legs that the deposit does not hold together, before any of them is asked for.

        Args:
            wanted: provider → how its rows count; one `use` for each follows.

        Raises:
            DepositUsedUp
        """
        changed: dict[bytes, LegState] = {}
        for provider, rows in wanted.items():
            leg = self.leg(provider)
            used = leg.used.plus(rows)
            if not leg.promised.covers(used):
                changed[provider] = replace(leg, promised=_promise(leg, used, rows))
        if changed:
            untouched = [leg for leg in self.state.legs if leg.provider not in changed]
            self._require([*untouched, *changed.values()])

    def seal_turn(self, transcript: bytes) -> SignedVoucher | None:
        """A voucher over the same rows with the transcript as it is now, so that acks cover the whole turn."""
        if self.state.last_voucher is None or self.state.transcript == transcript:
            return None
        voucher = self._voucher(None, transcript)
        self._note(voucher)
        return voucher

    @property
    def is_final(self) -> bool:
        """Whether the session's final voucher was signed: nothing more can be promised."""
        return self.state.n == FINAL_N

    def finish(self, transcript: bytes) -> SignedVoucher:
        """The final voucher: over what was promised so far, and the last that a provider takes.

        Args:
            transcript: of every channel on which it will be sent; they have it in common.

        Raises:
            ChannelRefused: another final voucher was signed before; two with one number must not be.
        """
        last = self.state.last_voucher
        if self.is_final and last is not None:
            if last.voucher.transcript != transcript:
                raise ChannelRefused("the session's final voucher was signed for other channels before")
            return last
        voucher = self._voucher(None, transcript, n=FINAL_N)
        self._note(voucher)
        return voucher

    def credit(self, provider: bytes, rows: RowCounts) -> None:
        """Rows that were asked for and not decoded may be asked for again."""
        leg = self.leg(provider)
        self._put(replace(leg, used=leg.used.minus(rows)))

    def resume(self, provider: bytes, voucher_n: int, served: RowCounts) -> None:
        """Go on with a provider from what it says that it has: a voucher of ours, and a count of rows served.

        A leg that failed stood at what it acknowledged. Whoever comes back with a later voucher can claim that one in
        any case; so it counts again, and rows are to be had for it. The provider's count of rows is taken over where it
        is higher than ours.

        Raises:
            ChannelRefused: it claims more rows than that voucher covers.
        """
        leg = self.leg(provider)
        promised = self._covered_by(leg, voucher_n)
        if not promised.covers(served):
            raise ChannelRefused(
                f"the provider claims {served.total} rows served, vouchers cover {promised.total}"
            )
        self._put(replace(leg, promised=promised, used=leg.used.more_of(served)))

    def _covered_by(self, leg: LegState, voucher_n: int) -> RowCounts:
        """Rows of a leg that a voucher covers, which its provider says is its newest."""
        acked_n = next((kept.ack.n for kept in self.state.acks if kept.ack.provider == leg.provider), 0)
        if voucher_n <= acked_n:
            return leg.acked
        voucher = self._signed.get(voucher_n)
        if voucher is None:
            return leg.most  # signed by an earlier run of this program
        rows = next((one.rows for one in voucher.legs if one.provider == leg.provider), NO_ROWS)
        return rows.more_of(leg.acked)

    def abandon(self, provider: bytes) -> None:
        """A leg failed: later vouchers say what it acknowledged, at most one window less than was promised.

        Nobody else's claim pays it for a window that it may not have served. It may claim that window itself.
        """
        leg = self.leg(provider)
        self._put(replace(leg, promised=leg.acked, used=leg.used.less_of(leg.acked)))

    def take_ack(self, ack: SignedAck, service_key: bytes) -> None:
        """Keep a provider's ack of one of the newest vouchers.

        Raises:
            ChannelRefused: not signed by it, or not of a voucher that we signed, naming what differs.
        """
        if not ack.signed_by(service_key):
            raise ChannelRefused("the ack is not signed with the provider's service key")
        voucher = self._signed.get(ack.ack.n)
        if voucher is None:
            raise ChannelRefused(f"the ack is for voucher {ack.ack.n}, the last one is {self.state.n}")
        leg = next((leg for leg in voucher.legs if leg.provider == ack.ack.provider), None)
        cumulative = leg.cumulative_udllm if leg else 0
        for what, got, wanted in (
            ("chain", ack.ack.chain_id, self._chain_id),
            ("session", ack.ack.session.hex(), self.state.session.hex()),
            ("transcript", ack.ack.transcript.hex(), voucher.transcript.hex()),
            ("amount", ack.ack.cumulative_udllm, cumulative),
        ):
            if got != wanted:
                raise ChannelRefused(f"the ack names {what} {got}, the voucher says {wanted}")
        newest = next((kept for kept in self.state.acks if kept.ack.provider == ack.ack.provider), None)
        if newest is not None and newest.ack.n >= ack.ack.n:
            raise ChannelRefused(f"an ack of voucher {ack.ack.n} came after one of {newest.ack.n}")
        others = [other for other in self.state.acks if other.ack.provider != ack.ack.provider]
        acks = tuple(sorted([*others, ack], key=lambda kept: kept.ack.provider))
        self.state = replace(self.state, acks=acks)
        if leg is not None:
            self._put(replace(self.leg(ack.ack.provider), acked=leg.rows))

    def _voucher(self, changed: LegState | None, transcript: bytes, n: int = 0) -> SignedVoucher:
        legs = [changed if changed and leg.provider == changed.provider else leg for leg in self.state.legs]
        if changed is not None and changed not in legs:
            legs.append(changed)
        wire_legs = tuple(
            self._wire_leg(leg) for leg in sorted(legs, key=lambda leg: leg.provider) if leg.promised.total
        )
        if not wire_legs:  # a voucher has a leg, and this one owes nobody anything
            wire_legs = (self._wire_leg(self.leg(min(self._entries))),)
        self._require(legs)
        voucher = Voucher(
            self._chain_id, self.state.session, self._route_hash, n or self.state.n + 1, wire_legs, transcript
        )
        return sign_voucher(self._session_key, voucher)

    def _require(self, legs: Iterable[LegState]) -> None:
        """Refuse legs that may come to more than the deposit. Raises DepositUsedUp."""
        most = sum(cost_of_rows(self._entry(leg.provider)[0].prices, self._most(leg)) for leg in legs)
        needed = client_price(most, self._community_share_ppm)
        if needed > self.deposit_udllm:
            raise DepositUsedUp(needed, self.deposit_udllm)

    @staticmethod
    def _most(leg: LegState) -> RowCounts:
        """What the leg may come to: promises grow, but for a leg that failed."""
        return leg.promised.more_of(leg.most)

    def _wire_leg(self, leg: LegState) -> VoucherLeg:
        entry, role = self._entry(leg.provider)
        cost = cost_of_rows(entry.prices, leg.promised)
        return VoucherLeg(leg.provider, leg_payees(entry, role), leg.promised, cost)

    def _entry(self, provider: bytes) -> tuple[BookEntry, int]:
        found = self._entries.get(provider)
        if found is None:
            raise ChannelRefused(f"provider {provider.hex()} is not in the session's route")
        return found

    def _put(self, leg: LegState) -> None:
        others = [other for other in self.state.legs if other.provider != leg.provider]
        legs = tuple(sorted([*others, leg], key=lambda kept: kept.provider))
        self.state = replace(self.state, legs=legs)

    def _note(self, voucher: SignedVoucher) -> None:
        self._signed[voucher.voucher.n] = voucher.voucher
        self._signed.pop(voucher.voucher.n - self._most_unacknowledged, None)
        self.state = replace(
            self.state, n=voucher.voucher.n, transcript=voucher.voucher.transcript, last_voucher=voucher
        )


def _promise(leg: LegState, used: RowCounts, rows: RowCounts) -> RowCounts:
    """What to promise of a leg when ``rows`` are about to be used, ``used`` with them."""
    return RowCounts(
        max(leg.promised.prompt, used.prompt),
        _promised(leg.promised.kept, leg.used.kept, rows.kept, WINDOW_KEPT_ROWS),
        _promised(leg.promised.drafted, leg.used.drafted, rows.drafted, WINDOW_DRAFTED_ROWS),
        max(leg.promised.replayed, used.replayed),
    )


def _promised(promised: int, used: int, rows: int, window: int) -> int:
    """What to promise of one kind when so many rows are used and ``rows`` more are wanted."""
    return promised if promised >= used + rows else used + max(rows, window)
