"""Opening sessions, topping them up, and claiming on them while they are open."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

from dllm_protocol import state_keys
from dllm_protocol.actions import ClaimVoucher, OpenSession, TopUpSession
from dllm_protocol.assignment import encoded_route_hash, make_route, session_id_of
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.ranked_book import rules_of
from dllm_protocol.records import SESSION_OPEN, ModelRecord, Route, Session
from dllm_protocol.refusals import AlreadyExists, BadValue, NoRoute, NotAuthorised, SessionClosed
from full_node.state_machine.accounts.changes import debit
from full_node.state_machine.books import view as books
from full_node.state_machine.context import ActionContext
from full_node.state_machine.models.view import active_model
from full_node.state_machine.providers import view as providers
from full_node.state_machine.sessions import rules, view
from full_node.state_machine.sessions.changes import count_route, pay_out, write_session
from full_node.state_machine.state import StateReader


def open_session(ctx: ActionContext, action: OpenSession) -> None:
    """Lock a deposit and assign a route over the offer book in force."""
    session_id = session_id_of(ctx.sender, action.session_key)

    # CHECK
    model = active_model(ctx.state, action.model)
    if view.is_known(ctx.state, session_id):
        raise AlreadyExists(
            f"the session {session_id.hex()} of key {action.session_key.hex()} was opened already",
            hint="every session has a key of its own",
        )
    if action.deposit_udllm == 0:
        raise BadValue("a session needs a deposit, 0 udllm were given")
    if any(first >= second for first, second in pairwise(action.exclusions)):
        raise BadValue("exclusions ascend and stand once each")
    route = _assign(ctx, action, model)
    encoded_route = route.encode()
    hash_of_route = encoded_route_hash(encoded_route)

    # CHARGE
    debit(ctx, action.deposit_udllm)

    # CHANGE
    session = Session(
        account=ctx.sender,
        model=action.model,
        session_key=action.session_key,
        route_hash=hash_of_route,
        deposit_udllm=action.deposit_udllm,
        spent_udllm=0,
        status=SESSION_OPEN,
        voucher_n=0,
        legs=(),
        transcript=b"",
        opened_epoch=ctx.epoch,
        closing_until_ms=0,
        community_share_ppm=ctx.params.community_share_ppm,
        rated=0,
    )
    write_session(ctx.state, session_id, session)
    ctx.state.put(state_keys.route(session_id), encoded_route)
    count_route(ctx.state, route, +1)
    ctx.data.append(session_id)

    # EVENT
    ctx.emit("session_opened", session=session_id, account=ctx.sender, route_hash=hash_of_route)


def top_up_session(ctx: ActionContext, action: TopUpSession) -> None:
    """Add to the deposit of an open session of the sender's."""
    # CHECK
    session = view.session(ctx.state, action.session)
    if session.account != ctx.sender:
        raise NotAuthorised(f"{ctx.sender.hex()} asks, the session is {session.account.hex()}'s")
    rules.check_not_closed(action.session, session)
    if session.status != SESSION_OPEN:
        raise SessionClosed(
            f"the session {action.session.hex()} is closing until block time {session.closing_until_ms} ms"
        )
    if action.amount_udllm == 0:
        raise BadValue("topping up by 0 udllm changes nothing")

    # CHARGE
    debit(ctx, action.amount_udllm)

    # CHANGE
    deposit_udllm = session.deposit_udllm + action.amount_udllm
    write_session(ctx.state, action.session, replace(session, deposit_udllm=deposit_udllm))

    # EVENT
    ctx.emit("session_topped_up", session=action.session, deposit_udllm=deposit_udllm)


def claim_voucher(ctx: ActionContext, action: ClaimVoucher) -> None:
    """Pay a voucher out; anyone may bring it, also while the session is closing."""
    voucher = action.voucher.voucher

    # CHECK
    session = view.session(ctx.state, voucher.session)
    route = view.route(ctx.state, voucher.session)
    rules.check_voucher(ctx.block.chain_id, voucher.session, session, route, action.voucher)
    rules.check_worth_claiming(session, voucher)

    # CHANGE
    settled = pay_out(ctx.state, session, voucher)
    write_session(ctx.state, voucher.session, settled)

    # EVENT
    ctx.emit("voucher_claimed", session=voucher.session, n=voucher.n, spent_udllm=settled.spent_udllm)


def _assign(ctx: ActionContext, action: OpenSession, model: ModelRecord) -> Route:
    """The route that the rule gives over the model's newest book. Raises NoRoute."""
    layers = model.manifest.layers
    book = books.ranked(ctx.state, action.model, rules_of(model.manifest, ctx.params))
    if book is None:
        raise NoRoute(f"no offers for {action.model!r} were frozen into a book yet")
    route = make_route(
        book,
        account=ctx.sender,
        session_key=action.session_key,
        manifest_hash=manifest_hash(model.manifest),
        max_prices=action.max_prices,
        exclusions=action.exclusions,
        load_of=partial(_load, ctx.state, action.model),
    )
    if route is None:
        raise NoRoute(
            f"the {book.offers} offers for {action.model!r} in epoch {book.epoch} make no cover of "
            f"[0, {layers}) within {action.max_prices} with room left",
            hint="allow higher prices or exclude fewer providers",
        )
    return route


def _load(state: StateReader, model_name: str, entry: BookEntry) -> int:
    """Sessions open on an offer; one that no longer stands as it was frozen counts as full."""
    offer = providers.offer(state, model_name, entry.provider)
    if offer is None or not providers.stands(offer):
        return entry.capacity_sessions
    moved = (offer.first_layer, offer.end_layer) != (entry.first_layer, entry.end_layer)
    full = offer.open_sessions >= offer.capacity_sessions
    if moved or full or providers.provider(state, entry.provider).jailed:
        return entry.capacity_sessions
    return offer.open_sessions
