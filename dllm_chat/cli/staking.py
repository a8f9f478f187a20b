"""`dllm validator stake|unstake|collect`: check, price, ask, send, prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dllm_chat.cli.confirming import confirm
from dllm_chat.cli.output import Report, note, progress
from dllm_chat.cli.sending import check_funds
from dllm_chat.cli.service import paying
from dllm_chat.cli.validators import find_validator, shown_address, time_text
from dllm_protocol.actions import Stake, Unstake
from dllm_protocol.actions.validators import parse_key_proof
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.errors import UsageRefused
from dllm_protocol.params import Params
from dllm_protocol.records import ValidatorRecord
from dllm_protocol.refusals import NotAuthorised
from dllm_protocol.units import format_dllm, parse_dllm

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain

EVERYTHING = "all"
_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Terms:
    """How a transaction is agreed to and who signs it."""

    dry_run: bool
    yes: bool
    password_file: Path | None
    password_fd: int | None
    flags: Mapping[str, object]
    """Settings typed on the command line: wallet and account."""


async def stake_tokens(amount: str, key_proof: str, validator: str, terms: Terms) -> Report:
    """Stake on a new key, or more on a validator of one's own.

    Raises:
        UsageRefused, BadKeyProof, BadValidatorAddress, BadAmount, NotFound, Declined, TransactionRefused,
        OutcomeUnknown
    """
    amount_udllm = parse_dllm(amount)
    if bool(key_proof) == bool(validator):
        raise UsageRefused(
            "say which validator: --key-proof for a new one, or --validator for one of yours",
            hint="dllm-node key --owner ADDRESS prints the key proof of a node",
        )
    new_key = parse_key_proof(key_proof) if key_proof else None
    async with paying(
        terms.password_file, terms.password_fd, chat_key_will_do=False, **terms.flags
    ) as service:
        chain = service.chain
        if new_key is not None:
            action = Stake(new_key[0], amount_udllm, new_key[1])
        else:
            action = Stake((await _own(chain, validator)).public_key, amount_udllm, b"")
        fee_udllm = await chain.sender.fee_of(chain.purse, (action,))
        await check_funds(chain, amount_udllm, fee_udllm)
        params = await chain.sender.params()
        note(f"validator  {shown_address(address_of(action.public_key))}")
        note(f"stake      {format_dllm(amount_udllm)} DLLM, fee {format_dllm(fee_udllm)} DLLM")
        note(_what_it_means(params))
        return await _send(chain, action, address_of(action.public_key), amount_udllm, fee_udllm, terms)


async def unstake_tokens(validator: str, amount: str, terms: Terms) -> Report:
    """Start taking stake back. Raises as `stake_tokens`."""
    typed_udllm = None if amount.strip().lower() == EVERYTHING else parse_dllm(amount)
    async with paying(
        terms.password_file, terms.password_fd, chat_key_will_do=False, **terms.flags
    ) as service:
        chain = service.chain
        held = await _own(chain, validator)
        amount_udllm = held.stake_udllm if typed_udllm is None else typed_udllm
        if amount_udllm == 0:
            raise UsageRefused(
                "nothing is staked any more", hint="dllm validator collect pays out what is due"
            )
        action = Unstake(address_of(held.public_key), amount_udllm)
        fee_udllm = await chain.sender.fee_of(chain.purse, (action,))
        await check_funds(chain, 0, fee_udllm)
        days = (await chain.sender.params()).unbonding_ms / _DAY_MS
        note(f"validator  {shown_address(action.validator)}")
        note(f"take back  {format_dllm(amount_udllm)} DLLM, fee {format_dllm(fee_udllm)} DLLM")
        note(f"it can be collected after {days:g} days of block time, and be slashed until then")
        return await _send(chain, action, action.validator, amount_udllm, fee_udllm, terms)


async def collect_tokens(validator: str, terms: Terms) -> Report:
    """Have what is due paid out. Raises as `stake_tokens`."""
    async with paying(
        terms.password_file, terms.password_fd, chat_key_will_do=False, **terms.flags
    ) as service:
        chain = service.chain
        height = await chain.reads.provable_height()
        now_ms = (await chain.reads.client.verified_header(height)).time.to_ns() // 1_000_000
        held = await _own(chain, validator, height)
        due_udllm = sum(one.amount_udllm for one in held.unbonding if one.release_time_ms <= now_ms)
        if not due_udllm:
            raise UsageRefused(_nothing_due(held))
        action = Unstake(address_of(held.public_key), 0)
        fee_udllm = await chain.sender.fee_of(chain.purse, (action,))
        await check_funds(chain, 0, fee_udllm)
        note(f"validator  {shown_address(action.validator)}")
        note(f"collect    {format_dllm(due_udllm)} DLLM, fee {format_dllm(fee_udllm)} DLLM")
        return await _send(chain, action, action.validator, due_udllm, fee_udllm, terms)


async def _own(chain: Chain, text: str, height: int | None = None) -> ValidatorRecord:
    """A validator of the payer's. Raises BadValidatorAddress, NotFound, NotAuthorised."""
    found = await find_validator(chain, text, height)
    if found.owner != chain.purse.account:
        raise NotAuthorised(
            f"the stake belongs to {encode_address(chain.prefix, found.owner)}, "
            f"you are {encode_address(chain.prefix, chain.purse.account)}",
            hint="--wallet and --account choose another account",
        )
    return found


async def _send(
    chain: Chain, action: Stake | Unstake, validator: bytes, amount_udllm: int, fee_udllm: int, terms: Terms
) -> Report:
    data = {
        "validator": shown_address(validator),
        "amount_udllm": amount_udllm,
        "fee_udllm": fee_udllm,
        "chain_id": chain.chain_id,
    }
    if terms.dry_run:
        return Report(data | {"dry_run": True}, "nothing was sent (--dry-run)")
    confirm("Send it?", yes=terms.yes)
    progress("sending")
    sent = await chain.sender.send(chain.purse, (action,))
    data |= {"tx_hash": sent.tx_hash.hex().upper(), "height": sent.height, "fee_udllm": sent.fee_udllm}
    words = f"done: proved in block {sent.height}"
    return Report(data, f"{words}\ntransaction {data['tx_hash']}, fee {format_dllm(sent.fee_udllm)} DLLM")


def _what_it_means(params: Params) -> str:
    return (
        f"it stays locked until {params.unbonding_ms / _DAY_MS:g} days after you take it back; signing two blocks at "
        f"one height burns {params.slash_double_sign_ppm / 10_000:g} % of it and ends the validator"
    )


def _nothing_due(held: ValidatorRecord) -> str:
    if not held.unbonding:
        return "nothing is on its way back"
    return f"nothing is due before {time_text(held.unbonding[0].release_time_ms)}"
