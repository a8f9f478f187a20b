"""Actions on a provider's offers."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.actions import SetOffer, WithdrawOffer
from dllm_protocol.records import Offer
from dllm_protocol.refusals import BadValue, UnknownOffer
from full_node.state_machine.books.changes import mark_stale
from full_node.state_machine.context import ActionContext
from full_node.state_machine.models.view import active_model
from full_node.state_machine.providers import changes, rules, view


def set_offer(ctx: ActionContext, action: SetOffer) -> None:
    """Offer layers of a model, or change the terms of the offer that stands."""
    # CHECK
    provider = view.provider(ctx.state, action.provider)
    rules.check_owner_or_operator(provider, ctx.sender)
    rules.check_may_offer(provider, ctx.params)
    rules.check_offer(action, active_model(ctx.state, action.model))
    earlier = view.offer(ctx.state, action.model, action.provider)
    standing = len(view.live_offers(ctx.state, action.model))
    if not view.stands(earlier) and standing >= ctx.params.max_offers_per_model:
        raise BadValue(
            f"{standing} offers stand for {action.model!r}, at most {ctx.params.max_offers_per_model} may"
        )

    # CHANGE
    if ctx.sender == provider.owner:
        provider = changes.collect_matured(ctx, provider)
    changes.write_provider(ctx.state, action.provider, replace(provider, alive_epoch=ctx.epoch))
    offer = Offer(
        provider=action.provider,
        model=action.model,
        first_layer=action.first_layer,
        end_layer=action.end_layer,
        prices=action.prices,
        capacity_sessions=action.capacity_sessions,
        open_sessions=earlier.open_sessions if earlier else 0,
    )
    changes.set_offer(ctx.state, offer)
    mark_stale(ctx.state, action.model)

    # EVENT
    ctx.emit(
        "offer_set",
        provider=action.provider,
        model=action.model,
        first_layer=action.first_layer,
        end_layer=action.end_layer,
        capacity_sessions=action.capacity_sessions,
    )


def withdraw_offer(ctx: ActionContext, action: WithdrawOffer) -> None:
    """Take an offer back; sessions that are open on it go on."""
    # CHECK
    provider = view.provider(ctx.state, action.provider)
    rules.check_owner_or_operator(provider, ctx.sender)
    offer = view.offer(ctx.state, action.model, action.provider)
    if offer is None or not view.stands(offer):
        raise UnknownOffer(f"the provider {action.provider.hex()} has no offer for {action.model!r}")

    # CHANGE
    if ctx.sender == provider.owner:
        changes.write_provider(ctx.state, action.provider, changes.collect_matured(ctx, provider))
    changes.withdraw_offer(ctx.state, offer)
    mark_stale(ctx.state, action.model)

    # EVENT
    ctx.emit("offer_withdrawn", provider=action.provider, model=action.model)
