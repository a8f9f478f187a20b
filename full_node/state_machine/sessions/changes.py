"""Writing sessions: opening, paying out, closing."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol import state_keys
from dllm_protocol.assignment import leg_entries
from dllm_protocol.pricing import PPM, client_price
from dllm_protocol.records import SESSION_CLOSED, Route, Session
from dllm_protocol.voucher import Voucher, VoucherLeg
from full_node.state_machine.accounts.changes import credit, pay_into
from full_node.state_machine.providers.changes import count_session
from full_node.state_machine.sessions import rules
from full_node.state_machine.state import Overlay


def write_session(state: Overlay, session_id: bytes, session: Session) -> None:
    """Store a session's record."""
    state.write(state_keys.session(session_id), session)


def count_route(state: Overlay, route: Route, change: int) -> None:
    """One session more (+1) or less (-1) is open on every offer that stands in the route."""
    for provider_id in sorted(leg_entries(route)):
        count_session(state, route.model, provider_id, change)


def pay_out(state: Overlay, session: Session, voucher: Voucher) -> Session:
    """Pay what a checked voucher owes beyond what was paid; return the session after it.

    Owners get their legs' amounts. The community pool gets the rest of the client's price and what the division
    of a leg among its payees leaves over.
    """
    legs = rules.merged_legs(session, voucher)
    paid_before = {leg.provider: leg.cumulative_udllm for leg in session.legs}
    for leg in legs:
        _pay_leg(state, leg, leg.cumulative_udllm - paid_before.get(leg.provider, 0))
    payments_udllm = rules.total_of(legs)
    spent_udllm = client_price(payments_udllm, session.community_share_ppm)
    community_before = session.spent_udllm - rules.total_of(session.legs)
    pay_into(state, state_keys.COMMUNITY_POOL, spent_udllm - payments_udllm - community_before)
    paid = replace(session, spent_udllm=spent_udllm, legs=legs)
    if voucher.n <= session.voucher_n:
        return paid
    return replace(paid, voucher_n=voucher.n, transcript=voucher.transcript)


def finish(state: Overlay, session: Session, route: Route) -> Session:
    """Refund what was not spent, make room on the offers, and return the closed session."""
    credit(state, session.account, session.deposit_udllm - session.spent_udllm)
    count_route(state, route, -1)
    return replace(session, status=SESSION_CLOSED, closing_until_ms=0)


def _pay_leg(state: Overlay, leg: VoucherLeg, amount_udllm: int) -> None:
    """Divide an amount among a leg's payees; what rounding leaves goes to the community pool."""
    left_udllm = amount_udllm
    for payee in leg.payees:
        part_udllm = amount_udllm * payee.share_ppm // PPM
        credit(state, payee.owner, part_udllm)
        left_udllm -= part_udllm
    pay_into(state, state_keys.COMMUNITY_POOL, left_udllm)
