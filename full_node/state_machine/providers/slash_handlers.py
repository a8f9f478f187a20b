"""Punishing a provider that signed two acks of one voucher."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol import state_keys
from dllm_protocol.actions import ReportContradiction
from dllm_protocol.pricing import PPM
from dllm_protocol.records import Provider, Slash, Unbonding
from dllm_protocol.refusals import AlreadyExists, BadAck, NotContradictory
from dllm_protocol.voucher import SignedAck, contradict
from full_node.state_machine.accounts.changes import pay_into
from full_node.state_machine.books.changes import mark_stale
from full_node.state_machine.context import ActionContext
from full_node.state_machine.providers import view
from full_node.state_machine.providers.changes import write_provider


def report_contradiction(ctx: ActionContext, action: ReportContradiction) -> None:
    """Slash the bond of a provider that signed two different acks for one voucher."""
    ack = action.first.ack

    # CHECK
    if not contradict(ack, action.second.ack):
        raise NotContradictory(
            f"the acks {_named(action.first)} and {_named(action.second)} can both be honest"
        )
    provider = view.provider(ctx.state, ack.provider)
    for signed in (action.first, action.second):
        _check_ack(ctx, signed, provider)
    marker = state_keys.slashed(ack.provider, ack.session, ack.n)
    if ctx.state.get(marker) is not None:
        raise AlreadyExists(
            f"the provider {ack.provider.hex()} was slashed for voucher {ack.n} "
            f"of session {ack.session.hex()[:16]}… already"
        )

    # CHANGE
    slashed, taken_udllm = _slash(provider, ctx.params.slash_contradiction_ppm)
    jailed = slashed.bond_udllm < ctx.params.provider_bond_udllm
    write_provider(ctx.state, ack.provider, replace(slashed, jailed=int(jailed)))
    pay_into(ctx.state, state_keys.COMMUNITY_POOL, taken_udllm)
    ctx.state.write(marker, Slash(ctx.sender, taken_udllm))
    for model_name in view.offered_models(ctx.state, ack.provider):
        mark_stale(ctx.state, model_name)

    # EVENT
    ctx.emit(
        "provider_slashed",
        provider=ack.provider,
        session=ack.session,
        n=ack.n,
        amount_udllm=taken_udllm,
        jailed=int(jailed),
    )


def _check_ack(ctx: ActionContext, signed: SignedAck, provider: Provider) -> None:
    """Raises BadAck for another chain's ack, or one that no key of the provider's signed, retired ones included."""
    if signed.ack.chain_id != ctx.block.chain_id:
        raise BadAck(f"the ack is for chain {signed.ack.chain_id!r}, this is {ctx.block.chain_id!r}")
    keys = [key.service_key for key in provider.retired if key.until_ms > ctx.block.time_ms]
    if not any(signed.signed_by(key) for key in (provider.service_key, *keys)):
        raise BadAck(f"the ack {_named(signed)} is not signed by {provider.service_key.hex()}")


def _slash(provider: Provider, slash_ppm: int) -> tuple[Provider, int]:
    """The provider with a part of its bond and of everything unbonding gone, and how much that is."""
    bond_udllm = _left(provider.bond_udllm, slash_ppm)
    unbonding = tuple(
        Unbonding(_left(entry.amount_udllm, slash_ppm), entry.release_time_ms) for entry in provider.unbonding
    )
    before = provider.bond_udllm + sum(entry.amount_udllm for entry in provider.unbonding)
    after = bond_udllm + sum(entry.amount_udllm for entry in unbonding)
    return replace(provider, bond_udllm=bond_udllm, unbonding=unbonding), before - after


def _left(amount_udllm: int, slash_ppm: int) -> int:
    return amount_udllm - amount_udllm * slash_ppm // PPM


def _named(signed: SignedAck) -> str:
    ack = signed.ack
    return f"{ack.provider.hex()[:16]}…/{ack.session.hex()[:16]}…/{ack.n}"
