"""Actions on what providers say of themselves for placement."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.actions import SetHolding, WithdrawHolding
from dllm_protocol.records import Holding
from dllm_protocol.refusals import BadValue, UnknownOffer
from full_node.state_machine.books.changes import mark_stale
from full_node.state_machine.context import ActionContext
from full_node.state_machine.holders import changes, rules, view
from full_node.state_machine.models.view import active_model
from full_node.state_machine.providers import view as providers
from full_node.state_machine.providers.changes import collect_matured, write_provider
from full_node.state_machine.providers.rules import check_may_offer, check_owner_or_operator


def set_holding(ctx: ActionContext, action: SetHolding) -> None:
    """Say what a provider can hold of a model, and which layers it serves, loads or waits for."""
    # CHECK
    provider = providers.provider(ctx.state, action.provider)
    check_owner_or_operator(provider, ctx.sender)
    check_may_offer(provider, ctx.params)
    rules.check_holding(action, active_model(ctx.state, action.model))
    earlier = view.holding(ctx.state, action.model, action.provider)
    if earlier is None:
        listed = len(view.live_holders(ctx.state, action.model))
        if listed >= ctx.params.max_offers_per_model:
            raise BadValue(
                f"{listed} holders of {action.model!r} are listed, at most {ctx.params.max_offers_per_model} may be"
            )

    # CHANGE
    if ctx.sender == provider.owner:
        provider = collect_matured(ctx, provider)
    write_provider(ctx.state, action.provider, replace(provider, alive_epoch=ctx.epoch))
    slice_ = (action.first_layer, action.end_layer)
    is_same = earlier is not None and slice_ == (earlier.first_layer, earlier.end_layer)
    holding = Holding(
        provider=action.provider,
        model=action.model,
        speed_layer_rows_s=action.speed_layer_rows_s,
        memory_layers=action.memory_layers,
        first_layer=action.first_layer,
        end_layer=action.end_layer,
        since_epoch=earlier.since_epoch if earlier is not None and is_same else ctx.epoch,
    )
    changes.set_holding(ctx.state, holding, is_listed=earlier is not None)
    mark_stale(ctx.state, action.model)

    # EVENT
    ctx.emit(
        "holding_set",
        provider=action.provider,
        model=action.model,
        first_layer=action.first_layer,
        end_layer=action.end_layer,
    )


def withdraw_holding(ctx: ActionContext, action: WithdrawHolding) -> None:
    """Take back what a provider said of itself for a model."""
    # CHECK
    provider = providers.provider(ctx.state, action.provider)
    check_owner_or_operator(provider, ctx.sender)
    if view.holding(ctx.state, action.model, action.provider) is None:
        raise UnknownOffer(f"the provider {action.provider.hex()} has no holding for {action.model!r}")

    # CHANGE
    if ctx.sender == provider.owner:
        write_provider(ctx.state, action.provider, collect_matured(ctx, provider))
    changes.withdraw_holding(ctx.state, action.model, action.provider)
    mark_stale(ctx.state, action.model)

    # EVENT
    ctx.emit("holding_withdrawn", provider=action.provider, model=action.model)
