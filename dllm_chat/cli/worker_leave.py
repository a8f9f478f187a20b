"""`dllm worker leave`: take a provider's bond back, and have it paid out once it is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dllm_chat.cli.bonds import own_providers
from dllm_chat.cli.confirming import confirm
from dllm_chat.cli.output import Report, note, progress
from dllm_chat.cli.sending import check_funds
from dllm_chat.cli.service import paying
from dllm_chat.cli.staking import Terms
from dllm_chat.cli.validators import time_text
from dllm_chat.cli.workers import status_data
from dllm_chat.sanitize import clean_line
from dllm_protocol import state_keys
from dllm_protocol.actions import UnbondProvider, WithdrawOffer
from dllm_protocol.address import PROVIDER_SUFFIX, decode_address, encode_address
from dllm_protocol.encoding import Record
from dllm_protocol.errors import NotFound, UsageRefused
from dllm_protocol.records import ModelSet, Provider
from dllm_protocol.units import format_dllm

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain

_DAY_MS = 24 * 3600 * 1000


async def leave(provider: str, terms: Terms) -> Report:
    """Take the whole bond of one of the payer's providers back; where that was done, have paid out what is free.

    Args:
        provider: its address; may be empty where the account has one only.

    Raises:
        UsageRefused: the worker runs, or nothing is free yet, or it is not clear which provider is meant.
        BadAddress, NotFound, Declined, TransactionRefused, OutcomeUnknown
    """
    if status_data()["running"]:
        raise UsageRefused("the worker of this home runs", hint="first: dllm worker off")
    async with paying(
        terms.password_file, terms.password_fd, chat_key_will_do=False, **terms.flags
    ) as service:
        chain = service.chain
        height = await chain.reads.provable_height()
        provider_id, held = await _meant(chain, provider, height)
        now_ms = (await chain.reads.client.verified_header(height)).time.to_ms()
        due_udllm = sum(one.amount_udllm for one in held.unbonding if one.release_time_ms <= now_ms)
        if not held.bond_udllm and not due_udllm:
            raise UsageRefused(f"nothing is free before {time_text(held.unbonding[0].release_time_ms)}")
        offered = await chain.reads.record(ModelSet, state_keys.offers_of(provider_id), height)
        models = offered.names if offered and held.bond_udllm else ()
        # An amount of 0 only has paid out what is free; bond leaves no provider that offers something.
        actions = [*(WithdrawOffer(provider_id, name) for name in models)]
        return await _send(chain, [*actions, UnbondProvider(provider_id, held.bond_udllm)], due_udllm, terms)


async def _meant(chain: Chain, text: str, height: int) -> tuple[bytes, Provider]:
    """A provider of the payer's. Raises BadAddress, NotFound, UsageRefused."""
    wanted = decode_address(text, chain.prefix + PROVIDER_SUFFIX) if text else None
    own = await own_providers(chain, height)
    found = [one for one in own if wanted in (None, one[0])]
    if not found:
        who = f"{text} is no provider with a bond" if text else "there is no provider with a bond"
        raise NotFound(
            f"{who} of {encode_address(chain.prefix, chain.purse.account)}",
            hint="dllm wallet balance lists them; --wallet and --account choose another account",
        )
    if len(found) > 1:
        raise UsageRefused(
            f"{len(found)} providers of yours have a bond", hint="say which: dllm wallet balance lists them"
        )
    return found[0]


async def _send(chain: Chain, actions: list[Record], due_udllm: int, terms: Terms) -> Report:
    """Price it, ask, send, prove; ``actions`` end with the unbonding."""
    *withdrawals, last = actions
    assert isinstance(last, UnbondProvider)
    models = [one.model for one in withdrawals if isinstance(one, WithdrawOffer)]
    fee_udllm = await chain.sender.fee_of(chain.purse, actions)
    await check_funds(chain, 0, fee_udllm)
    address = encode_address(chain.prefix + PROVIDER_SUFFIX, last.provider)
    note(f"provider   {address}")
    await _say_what(chain, last.amount_udllm, due_udllm, fee_udllm, models)
    data: dict[str, Any] = {
        "provider": address,
        "amount_udllm": last.amount_udllm,
        "paid_out_udllm": due_udllm,
        "withdrawn": [clean_line(name, 64) for name in models],
        "fee_udllm": fee_udllm,
        "chain_id": chain.chain_id,
    }
    if terms.dry_run:
        return Report(data | {"dry_run": True}, "nothing was sent (--dry-run)")
    confirm("Send it?", yes=terms.yes)
    progress("sending")
    sent = await chain.sender.send(chain.purse, actions)
    data |= {"tx_hash": sent.tx_hash.hex().upper(), "height": sent.height, "fee_udllm": sent.fee_udllm}
    left = await chain.reads.provider(last.provider, sent.height)
    free_ms = max((one.release_time_ms for one in left.unbonding), default=0) if left else 0
    data["release_time_ms"] = free_ms
    words = [f"done: proved in block {sent.height}"]
    if free_ms:
        words.append(f"the bond is free from {time_text(free_ms)}; then: dllm worker leave {address}")
    return Report(data, "\n".join(words))


async def _say_what(
    chain: Chain, amount_udllm: int, due_udllm: int, fee_udllm: int, models: list[str]
) -> None:
    if models:
        note(f"withdraw   its offers of {', '.join(clean_line(name, 64) for name in models)}")
    if amount_udllm:
        note(f"take back  {format_dllm(amount_udllm)} DLLM")
    if due_udllm:
        note(f"pay out    {format_dllm(due_udllm)} DLLM")
    note(f"fee        {format_dllm(fee_udllm)} DLLM")
    if amount_udllm:
        days = (await chain.sender.params()).unbonding_ms / _DAY_MS
        note(f"it is free after {days:g} days of block time, and can be slashed until then")
