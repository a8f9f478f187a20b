"""Actions of owners on their providers' registration, keys and bonds."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.actions import BondProvider, Heartbeat, RegisterProvider, UnbondProvider, UpdateProvider
from dllm_protocol.address import provider_id_of
from dllm_protocol.records import MAX_RETIRED_KEYS, MAX_UNBONDING, Provider, RetiredKey, Unbonding
from dllm_protocol.refusals import AlreadyExists, BadValue, BondTooSmall
from full_node.state_machine.accounts.changes import debit
from full_node.state_machine.books.changes import mark_stale, mark_stale_before
from full_node.state_machine.context import ActionContext
from full_node.state_machine.providers import changes, rules, view


def register_provider(ctx: ActionContext, action: RegisterProvider) -> None:
    """Register a provider of the sender's and lock its bond."""
    provider_id = provider_id_of(ctx.sender, action.operator)

    # CHECK
    rules.check_bond(action.bond_udllm, ctx.params)
    if view.is_registered(ctx.state, provider_id):
        raise AlreadyExists(
            f"the provider {provider_id.hex()} of owner {ctx.sender.hex()} "
            f"and operator {action.operator.hex()} is registered",
            hint="update it, or use another operator key",
        )

    # CHARGE
    debit(ctx, action.bond_udllm)

    # CHANGE
    provider = Provider(
        owner=ctx.sender,
        operator=action.operator,
        service_key=action.service_key,
        sealing_key=action.sealing_key,
        endpoints=action.endpoints,
        region=action.region,
        bond_udllm=action.bond_udllm,
        unbonding=(),
        alive_epoch=ctx.epoch,
        jailed=0,
        retired=(),
    )
    changes.write_provider(ctx.state, provider_id, provider)
    changes.add_to_owner(ctx.state, ctx.sender, provider_id)
    ctx.data.append(provider_id)

    # EVENT
    ctx.emit("provider_registered", provider=provider_id, owner=ctx.sender, bond_udllm=action.bond_udllm)


def update_provider(ctx: ActionContext, action: UpdateProvider) -> None:
    """Rotate a provider's keys or move it to other endpoints."""
    # CHECK
    provider = view.provider(ctx.state, action.provider)
    rules.check_owner_or_operator(provider, ctx.sender)
    retired = _retired(ctx, provider, action.service_key)

    # CHANGE
    provider = _collected(ctx, provider)
    provider = replace(
        provider,
        retired=retired,
        service_key=action.service_key or provider.service_key,
        sealing_key=action.sealing_key or provider.sealing_key,
        endpoints=action.endpoints or provider.endpoints,
    )
    changes.write_provider(ctx.state, action.provider, provider)

    # EVENT
    ctx.emit("provider_updated", provider=action.provider, service_key=provider.service_key)


def bond_provider(ctx: ActionContext, action: BondProvider) -> None:
    """Add to a provider's bond; a bond that is whole again ends a jailing."""
    # CHECK
    provider = view.provider(ctx.state, action.provider)
    rules.check_owner(provider, ctx.sender)
    if action.amount_udllm == 0:
        raise BadValue("bonding 0 udllm changes nothing")

    # CHARGE
    provider = _collected(ctx, provider)
    debit(ctx, action.amount_udllm)

    # CHANGE
    bond_udllm = provider.bond_udllm + action.amount_udllm
    freed = provider.jailed and bond_udllm >= ctx.params.provider_bond_udllm
    jailed = 0 if freed else provider.jailed
    changes.write_provider(
        ctx.state, action.provider, replace(provider, bond_udllm=bond_udllm, jailed=jailed)
    )
    if freed:
        for model_name in view.offered_models(ctx.state, action.provider):
            mark_stale(ctx.state, model_name)

    # EVENT
    ctx.emit("provider_bonded", provider=action.provider, bond_udllm=bond_udllm)


def unbond_provider(ctx: ActionContext, action: UnbondProvider) -> None:
    """Start taking bond back; an amount of 0 only collects what is due."""
    # CHECK
    provider = view.provider(ctx.state, action.provider)
    rules.check_owner(provider, ctx.sender)
    if action.amount_udllm > provider.bond_udllm:
        raise BondTooSmall(f"{action.amount_udllm} udllm are to leave a bond of {provider.bond_udllm}")
    remaining_udllm = provider.bond_udllm - action.amount_udllm
    if action.amount_udllm and view.offered_models(ctx.state, action.provider):
        rules.check_bond(remaining_udllm, ctx.params)

    # CHANGE
    provider = _collected(ctx, provider)
    if action.amount_udllm:
        if len(provider.unbonding) == MAX_UNBONDING:
            raise BadValue(
                f"{MAX_UNBONDING} amounts are on their way back already",
                hint=f"wait until block time {provider.unbonding[0].release_time_ms} ms",
            )
        leaving = Unbonding(action.amount_udllm, ctx.block.time_ms + ctx.params.unbonding_ms)
        provider = replace(provider, bond_udllm=remaining_udllm, unbonding=(*provider.unbonding, leaving))
    changes.write_provider(ctx.state, action.provider, provider)

    # EVENT
    ctx.emit("provider_unbonding", provider=action.provider, amount_udllm=action.amount_udllm)


def heartbeat(ctx: ActionContext, action: Heartbeat) -> None:
    """Renew a provider's offers for another term."""
    # CHECK
    provider = view.provider(ctx.state, action.provider)
    rules.check_owner_or_operator(provider, ctx.sender)

    # CHANGE
    provider = replace(_collected(ctx, provider), alive_epoch=ctx.epoch)
    changes.write_provider(ctx.state, action.provider, provider)
    for model_name in view.offered_models(ctx.state, action.provider):
        mark_stale_before(ctx.state, model_name, ctx.epoch)

    # EVENT
    ctx.emit("heartbeat", provider=action.provider, epoch=ctx.epoch)


def _retired(ctx: ActionContext, provider: Provider, new_key: bytes) -> tuple[RetiredKey, ...]:
    """The provider's retired keys after a rotation to ``new_key`` (empty: none).

    As long as bond is slashable, whatever it signed is held against it: rotating a key away is no way out.

    Raises:
        BadValue: too many keys are retired.
    """
    still = tuple(key for key in provider.retired if key.until_ms > ctx.block.time_ms)
    if new_key in (b"", provider.service_key):
        return still
    if len(still) == MAX_RETIRED_KEYS:
        raise BadValue(
            f"{MAX_RETIRED_KEYS} service keys were rotated away already, the first counts until {still[0].until_ms} ms"
        )
    return (*still, RetiredKey(provider.service_key, ctx.block.time_ms + ctx.params.unbonding_ms))


def _collected(ctx: ActionContext, provider: Provider) -> Provider:
    """The provider with its matured bond paid out, where the owner asks."""
    return changes.collect_matured(ctx, provider) if ctx.sender == provider.owner else provider
