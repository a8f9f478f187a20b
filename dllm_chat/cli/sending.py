"""`dllm wallet send`: check, price, ask, send, prove."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dllm_chat.cli.confirming import confirm
from dllm_chat.cli.output import Report, note, progress
from dllm_chat.cli.service import paying
from dllm_chat.wallet.address_book import AddressBook
from dllm_protocol.actions import Transfer
from dllm_protocol.address import encode_address
from dllm_protocol.errors import UsageRefused
from dllm_protocol.refusals import InsufficientFunds
from dllm_protocol.transaction import MAX_MEMO_BYTES
from dllm_protocol.units import format_dllm, parse_dllm

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain


class Lookalike(UsageRefused):
    """The address begins and ends like another one that is known here."""

    code = "E_LOOKALIKE"


@dataclass(frozen=True, slots=True)
class Payment:
    """What was typed."""

    to: str
    amount: str
    memo: str
    dry_run: bool
    yes: bool
    trust_lookalike: bool


async def send_payment(
    payment: Payment, password_file: Path | None, password_fd: int | None, **flags: object
) -> Report:
    """Send, and report where it stands.

    Raises:
        Declined, BadAddress, BadAmount, TransactionRefused, OutcomeUnknown
    """
    amount_udllm = parse_dllm(payment.amount)
    if len(payment.memo.encode()) > MAX_MEMO_BYTES:
        raise UsageRefused(
            f"the memo has {len(payment.memo.encode())} bytes, at most {MAX_MEMO_BYTES} are kept"
        )
    async with paying(password_file, password_fd, chat_key_will_do=False, **flags) as service:
        chain = service.chain
        book = AddressBook(service.paths.address_book)
        recipient = book.resolve(payment.to, chain.prefix)
        action = Transfer(recipient, amount_udllm)
        fee_udllm = await chain.sender.fee_of(chain.purse, (action,), payment.memo)
        await check_funds(chain, amount_udllm, fee_udllm)
        to_text = encode_address(chain.prefix, recipient)
        is_own = recipient == chain.purse.account
        _say_what(book, recipient, chain.prefix, payment, amount_udllm, fee_udllm, is_own=is_own)
        data = {
            "from": service.address,
            "to": to_text,
            "amount_udllm": amount_udllm,
            "fee_udllm": fee_udllm,
            "chain_id": chain.chain_id,
        }
        if payment.dry_run:
            return Report(data | {"dry_run": True}, "nothing was sent (--dry-run)")
        confirm("Send it?", yes=payment.yes)
        progress("sending")
        sent = await chain.sender.send(chain.purse, (action,), memo=payment.memo)
        book.remember_paid(recipient)
    data |= {"tx_hash": sent.tx_hash.hex().upper(), "height": sent.height, "fee_udllm": sent.fee_udllm}
    words = f"sent {format_dllm(amount_udllm)} DLLM to {to_text}: proved in block {sent.height}"
    return Report(data, f"{words}\ntransaction {data['tx_hash']}, fee {format_dllm(sent.fee_udllm)} DLLM")


async def check_funds(chain: Chain, amount_udllm: int, fee_udllm: int) -> None:
    """Raises InsufficientFunds unless the payer can spend both."""
    record = await chain.reads.account(chain.purse.account)
    balance_udllm = record.balance_udllm if record else 0
    if balance_udllm < amount_udllm + fee_udllm:
        raise InsufficientFunds(
            f"{format_dllm(amount_udllm)} DLLM and {format_dllm(fee_udllm)} fee are more than the spendable "
            f"{format_dllm(balance_udllm)}",
            hint="dllm session close --all brings deposits back",
        )


def _say_what(
    book: AddressBook,
    recipient: bytes,
    prefix: str,
    payment: Payment,
    amount_udllm: int,
    fee_udllm: int,
    *,
    is_own: bool = False,
) -> None:
    """Show the recipient whole, in groups, and warn of strangers and lookalikes.

    Args:
        is_own: the payer's own address is paid.
    """
    text = encode_address(prefix, recipient)
    grouped = " ".join(text[i : i + 4] for i in range(0, len(text), 4))
    known = book.find(recipient)
    note(f"to      {grouped}" + (f"  ({known.name})" if known and known.name else ""))
    note(f"amount  {format_dllm(amount_udllm)} DLLM, fee {format_dllm(fee_udllm)} DLLM")
    if is_own:
        note("this is your own address: only the fee goes")
    elif known is None:
        note("you never paid this address before")
    alike = book.lookalikes(recipient, prefix)
    if alike and not payment.trust_lookalike:
        other = encode_address(prefix, alike[0].address)
        raise Lookalike(
            f"{text} begins and ends like {other}, which you know, and is another address",
            hint="a common fraud; compare every character, then say --trust-lookalike",
        )
