"""What a voucher and its acks must keep to before the chain pays on them.

Each rule is one claim; `check_voucher` asks them in order, so that the first one broken names the refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from dllm_protocol.assignment import leg_entries, leg_payees
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import affordable_payments, client_price, cost_of_rows
from dllm_protocol.records import SESSION_CLOSED, Route, Session
from dllm_protocol.refusals import (
    BadValue,
    BadVoucherSignature,
    DepositExceeded,
    SessionClosed,
    VoucherForAnotherRoute,
    VoucherForAnotherSession,
    VoucherMispriced,
    VoucherNotHigher,
)
from dllm_protocol.voucher import SignedVoucher, Voucher, VoucherLeg


def check_voucher(
    chain_id: str, session_id: bytes, session: Session, route: Route, signed: SignedVoucher
) -> None:
    """Refuse a voucher that this session does not owe.

    Raises:
        SessionClosed, VoucherForAnotherSession, VoucherForAnotherRoute, BadVoucherSignature, BadValue,
        VoucherMispriced, DepositExceeded: in this order, naming both values.
    """
    voucher = signed.voucher
    check_not_closed(session_id, session)
    _names_this_session(chain_id, session_id, voucher)
    _names_this_route(session, voucher)
    if not signed.signed_by(session.session_key):
        raise BadVoucherSignature(f"voucher {voucher.n} is not signed by {session.session_key.hex()}")
    entries = leg_entries(route)
    for leg in voucher.legs:
        _is_a_leg_of_the_route(entries, leg)
    _legs_ascend(voucher)
    for leg in voucher.legs:
        _is_priced_by_the_route(entries[leg.provider][0], leg)
    _is_covered(session, voucher)


def check_not_closed(session_id: bytes, session: Session) -> None:
    """Raises SessionClosed."""
    if session.status == SESSION_CLOSED:
        raise SessionClosed(
            f"the session {session_id.hex()} is closed: {session.spent_udllm} udllm were spent"
        )


def check_worth_claiming(session: Session, voucher: Voucher) -> None:
    """Raises VoucherNotHigher for a voucher that gives no leg more than it was paid, or than the deposit has left."""
    if total_of(merged_legs(session, voucher)) == total_of(session.legs):
        raise VoucherNotHigher(
            f"voucher {voucher.n} gives nobody more than voucher {session.voucher_n}, which was claimed"
        )


def merged_legs(session: Session, voucher: Voucher) -> tuple[VoucherLeg, ...]:
    """What each leg will have been paid after the voucher, ascending by provider.

    Each leg gets the most that any voucher said, in whatever order they come: a client that signs less for a leg
    later, or leaves it out, takes nothing from who served it. Where several vouchers together promise more than the
    deposit, what is left of it is paid, no more.
    """
    merged = {leg.provider: leg for leg in session.legs}
    left_udllm = affordable_payments(session.deposit_udllm, session.community_share_ppm) - total_of(
        session.legs
    )
    for leg in voucher.legs:
        paid_udllm = merged[leg.provider].cumulative_udllm if leg.provider in merged else 0
        gain_udllm = min(leg.cumulative_udllm - paid_udllm, left_udllm)
        if gain_udllm > 0:
            left_udllm -= gain_udllm
            paid_udllm += gain_udllm
            merged[leg.provider] = VoucherLeg(leg.provider, leg.payees, leg.rows, paid_udllm)
    return tuple(merged[provider] for provider in sorted(merged))


def total_of(legs: tuple[VoucherLeg, ...]) -> int:
    """Payments to all legs, in udllm."""
    return sum(leg.cumulative_udllm for leg in legs)


def _names_this_session(chain_id: str, session_id: bytes, voucher: Voucher) -> None:
    if voucher.chain_id != chain_id:
        raise VoucherForAnotherSession(f"the voucher is for chain {voucher.chain_id!r}, this is {chain_id!r}")
    if voucher.session != session_id:
        raise VoucherForAnotherSession(
            f"the voucher is for session {voucher.session.hex()}, this is {session_id.hex()}"
        )


def _names_this_route(session: Session, voucher: Voucher) -> None:
    if voucher.route_hash != session.route_hash:
        raise VoucherForAnotherRoute(
            f"the voucher is for route {voucher.route_hash.hex()}, the session's is {session.route_hash.hex()}"
        )


def _is_a_leg_of_the_route(entries: Mapping[bytes, tuple[BookEntry, int]], leg: VoucherLeg) -> None:
    if leg.provider not in entries:
        raise VoucherForAnotherRoute(f"the provider {leg.provider.hex()} does not stand in the route")
    payees = leg_payees(*entries[leg.provider])
    if leg.payees != payees:
        raise VoucherForAnotherRoute(f"the leg pays {leg.payees}, the route says {payees}")


def _legs_ascend(voucher: Voucher) -> None:
    providers = [leg.provider for leg in voucher.legs]
    for first, second in pairwise(providers):
        if first >= second:
            raise BadValue(f"legs ascend by provider, yet {first.hex()} stands before {second.hex()}")


def _is_priced_by_the_route(entry: BookEntry, leg: VoucherLeg) -> None:
    cost_udllm = cost_of_rows(entry.prices, leg.rows)
    if leg.cumulative_udllm != cost_udllm:
        raise VoucherMispriced(
            f"the leg of {leg.provider.hex()} comes to {leg.cumulative_udllm} udllm, "
            f"its rows cost {cost_udllm} at the route's prices"
        )


def _is_covered(session: Session, voucher: Voucher) -> None:
    price_udllm = client_price(voucher.payments_udllm, session.community_share_ppm)
    if price_udllm > session.deposit_udllm:
        raise DepositExceeded(
            f"the voucher comes to {price_udllm} udllm with the community's share, "
            f"the deposit is {session.deposit_udllm}",
            hint="top the session up first",
        )
