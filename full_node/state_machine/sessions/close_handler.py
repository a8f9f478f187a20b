"""Ending a session.

OPEN ── the account, with everybody's ack of the final voucher ─→ CLOSED
OPEN ── any party ─→ CLOSING ── anyone, once the grace is over ─→ CLOSED
                     CLOSING ── the account, with such acks ────→ CLOSED

An ack of a voucher says only that its provider has that one, and a client may show an old ack. Only an ack of the
final voucher says that there is none that gives the provider more; and a voucher cannot tell who is missing in it.
So nobody of the route is closed over who did not acknowledge the final voucher, or had the grace to claim.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from dllm_protocol.actions import CloseSession
from dllm_protocol.assignment import leg_entries
from dllm_protocol.records import SESSION_CLOSED, SESSION_CLOSING, SESSION_OPEN, Route, Session
from dllm_protocol.refusals import BadAck, BadValue, GraceNotOver, NotAuthorised
from dllm_protocol.voucher import FINAL_N, ROLE_STAGE, SignedAck, Voucher
from full_node.state_machine.context import ActionContext
from full_node.state_machine.providers import view as providers
from full_node.state_machine.reputation.changes import rate
from full_node.state_machine.sessions import rules, view
from full_node.state_machine.sessions.changes import finish, pay_out, write_session


def close_session(ctx: ActionContext, action: CloseSession) -> None:
    """Settle and end a session, or begin to: see the module's picture."""
    # CHECK
    session = view.session(ctx.state, action.session)
    route = view.route(ctx.state, action.session)
    rules.check_not_closed(action.session, session)
    by_account = ctx.sender == session.account
    if action.voucher is not None:
        rules.check_voucher(ctx.block.chain_id, action.session, session, route, action.voucher)
    agreed = by_account and _is_acknowledged(ctx, action, route)
    grace_over = session.status == SESSION_CLOSING and ctx.block.time_ms >= session.closing_until_ms
    if session.status == SESSION_OPEN:
        _check_party(ctx, session, route)
    elif not (agreed or grace_over):
        raise GraceNotOver(
            f"block time is {ctx.block.time_ms} ms, the other side may claim until "
            f"{session.closing_until_ms} ms",
            hint="close it again then, or now with every provider's ack of the final voucher",
        )
    _check_ratings(action, route)

    # CHANGE
    if action.voucher is not None:
        session = pay_out(ctx.state, session, action.voucher.voucher)
    if by_account and action.ratings and not session.rated:
        _apply_ratings(ctx, action, session, route)
        session = replace(session, rated=1)
    if agreed or grace_over:
        session = finish(ctx.state, session, route)
    else:
        closing_until_ms = ctx.block.time_ms + ctx.params.close_grace_ms
        session = replace(session, status=SESSION_CLOSING, closing_until_ms=closing_until_ms)
    write_session(ctx.state, action.session, session)

    # EVENT
    event = "session_closed" if session.status == SESSION_CLOSED else "session_closing"
    ctx.emit(
        event,
        session=action.session,
        account=session.account,
        spent_udllm=session.spent_udllm,
        refund_udllm=session.deposit_udllm - session.spent_udllm,
        closing_until_ms=session.closing_until_ms,
    )


def _check_party(ctx: ActionContext, session: Session, route: Route) -> None:
    """Raises NotAuthorised unless the sender pays for the session or stands in its route."""
    if ctx.sender == session.account:
        return
    for provider_id in leg_entries(route):
        provider = providers.provider(ctx.state, provider_id)
        if ctx.sender in (provider.owner, provider.operator):
            return
    raise NotAuthorised(
        f"{ctx.sender.hex()} asks, the session is between {session.account.hex()} "
        f"and the providers {', '.join(one.hex() for one in sorted(leg_entries(route)))}"
    )


def _is_acknowledged(ctx: ActionContext, action: CloseSession, route: Route) -> bool:
    """Whether every provider of the route acknowledged the final voucher.

    Raises:
        BadAck: an ack that does not fit, whether it is needed or not.
    """
    if action.voucher is None:
        if action.acks:
            raise BadAck(f"{len(action.acks)} acks were given without the voucher that they acknowledge")
        return False
    voucher = action.voucher.voucher
    entries = leg_entries(route)
    for signed in action.acks:
        if signed.ack.provider not in entries:
            raise BadAck(f"the ack is of {signed.ack.provider.hex()}, which does not stand in the route")
        _check_ack(ctx, voucher, signed)
    return voucher.n == FINAL_N and {signed.ack.provider for signed in action.acks} == set(entries)


def _check_ack(ctx: ActionContext, voucher: Voucher, signed: SignedAck) -> None:
    """Raises BadAck, naming the first field that differs from the voucher."""
    ack = signed.ack
    owed = {leg.provider: leg.cumulative_udllm for leg in voucher.legs}
    wanted: dict[str, bytes | int | str] = {
        "chain_id": voucher.chain_id,
        "session": voucher.session,
        "n": voucher.n,
        "transcript": voucher.transcript,
        "cumulative_udllm": owed.get(ack.provider, 0),
    }
    for name, value in wanted.items():
        got = getattr(ack, name)
        if got != value:
            raise BadAck(f"the ack's {name} is {_shown(got)}, the voucher's is {_shown(value)}")
    service_key = providers.provider(ctx.state, ack.provider).service_key
    if not signed.signed_by(service_key):
        raise BadAck(f"the ack of {ack.provider.hex()} is not signed by {service_key.hex()}")


def _check_ratings(action: CloseSession, route: Route) -> None:
    """Raises BadValue for ratings that do not ascend or name a provider outside the route."""
    rated = [rating.provider for rating in action.ratings]
    for first, second in pairwise(rated):
        if first >= second:
            raise BadValue(f"ratings ascend by provider, yet {first.hex()} stands before {second.hex()}")
    entries = leg_entries(route)
    for provider_id in rated:
        if provider_id not in entries:
            raise BadValue(f"the rated provider {provider_id.hex()} does not stand in the route")


def _apply_ratings(ctx: ActionContext, action: CloseSession, session: Session, route: Route) -> None:
    """Count the account's ratings of stages, by what each was paid; a takeover and oneself are not rated."""
    paid = {leg.provider: leg.cumulative_udllm for leg in session.legs}
    entries = leg_entries(route)
    for rating in action.ratings:
        entry, role = entries[rating.provider]
        if role != ROLE_STAGE or entry.owner == session.account:
            continue
        weight = rate(
            ctx,
            rating.provider,
            session.model,
            paid_udllm=paid.get(rating.provider, 0),
            score_permille=rating.score_permille,
        )
        ctx.emit("rated", provider=rating.provider, model=session.model, weight=weight)


def _shown(value: bytes | int | str) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
