"""`dllm wallet history`: transactions of an account, each proved to stand in its block with its result."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_chat.cli.output import Report, table
from dllm_chat.cli.service import watching
from dllm_chat.paths import write_private
from dllm_chat.sanitize import clean_line
from dllm_protocol.actions import (
    BondProvider,
    OpenSession,
    RegisterModel,
    RegisterProvider,
    Stake,
    TopUpSession,
    Transfer,
)
from dllm_protocol.address import encode_address
from dllm_protocol.encoding import Record
from dllm_protocol.errors import MalformedBytes, UsageRefused
from dllm_protocol.transaction import Transaction
from dllm_protocol.units import format_dllm
from light_node.answers import TxAnswer
from light_node.errors import AnswerRefused
from light_node.outcomes import Included, Outcomes

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain

PER_PAGE = 100
MAX_PAGES = 11
COLUMNS = (
    "time",
    "height",
    "direction",
    "kind",
    "amount_udllm",
    "fee_udllm",
    "other",
    "memo",
    "ok",
    "tx_hash",
)


async def show_history(limit: int, csv_file: Path | None, **flags: object) -> Report:
    """The newest ``limit`` transactions that the account signed or was paid by."""
    async with watching(**flags) as service:
        chain = service.chain
        found = await _search(chain, limit)
        entries = [await _proved(chain, answer) for answer in found[:limit]]
        record = await chain.reads.account(chain.purse.account)
        address = service.address
    sequence = record.sequence if record else 0
    sent = sum(1 for one in entries if one["direction"] == "out")
    data = {
        "address": address,
        "transactions": entries,
        "sent_shown": sent,
        "sent_proved": sequence,
        "complete": sent == sequence,
    }
    if csv_file is not None:
        _write_csv(csv_file, entries)
    return Report(data, _text(entries, sent, sequence))


async def _search(chain: Chain, limit: int) -> list[TxAnswer]:
    """What the node finds, newest first; each transaction once."""
    account = chain.purse.account.hex()
    found: dict[bytes, TxAnswer] = {}
    for query in (f"fee.account='{account}'", f"transfer.recipient='{account}'"):
        for page in range(1, MAX_PAGES):
            answers, total = await chain.reads.client.primary.tx_search(query, page, PER_PAGE)
            found |= {answer.hash: answer for answer in answers}
            if not answers or page * PER_PAGE >= min(total, limit):
                break
    return sorted(found.values(), key=lambda one: (one.height, one.index), reverse=True)


async def _proved(chain: Chain, answer: TxAnswer) -> dict[str, Any]:
    """One transaction, after its inclusion and its result were proved.

    Raises:
        AnswerRefused: the node showed one that cannot be proved, or that is somebody else's business.
    """
    client = chain.reads.client
    outcome = await Outcomes(client, chain.reads).outcome(answer.tx)
    if not isinstance(outcome, Included):
        raise AnswerRefused(f"the node shows transaction {answer.hash.hex()} and cannot prove it")
    try:
        body = Transaction.decode(answer.tx).body
    except MalformedBytes as error:
        raise AnswerRefused(f"transaction {answer.hash.hex()} is in a block and unreadable") from error
    header = await client.verified_header(outcome.height)
    mine = body.account == chain.purse.account
    transfers = [action for action in body.actions if isinstance(action, Transfer)]
    received = sum(one.amount_udllm for one in transfers if one.recipient == chain.purse.account)
    if not mine and not received:
        raise AnswerRefused(f"transaction {answer.hash.hex()} has nothing to do with this account")
    others = [one.recipient for one in transfers] if mine else [body.account]
    amount = await _taken(chain, body.actions) if mine else received
    return {
        "time": str(header.time),
        "height": outcome.height,
        "direction": "out" if mine else "in",
        "kind": ", ".join(dict.fromkeys(_name(action) for action in body.actions)),
        "amount_udllm": amount if outcome.succeeded else 0,
        "fee_udllm": body.fee_udllm if mine else 0,
        "other": ", ".join(encode_address(chain.prefix, other) for other in dict.fromkeys(others)),
        "memo": clean_line(body.memo),
        "ok": outcome.succeeded,
        "tx_hash": answer.hash.hex().upper(),
        "proved": True,
    }


async def _taken(chain: Chain, actions: Sequence[Record]) -> int:
    """What actions took from their sender's account, in udllm: paid, locked in sessions, bonds or stakes."""
    registers = any(isinstance(action, RegisterModel) for action in actions)
    model_bond_udllm = (await chain.sender.params()).model_bond_udllm if registers else 0
    return sum(_taken_by(action, model_bond_udllm) for action in actions)


def _taken_by(action: Record, model_bond_udllm: int) -> int:
    match action:
        case Transfer() | BondProvider() | TopUpSession() | Stake():
            return action.amount_udllm
        case RegisterProvider():
            return action.bond_udllm
        case OpenSession():
            return action.deposit_udllm
        case RegisterModel():
            return model_bond_udllm  # the action does not say it: the chain's parameters do
    return 0


def _name(action: Record) -> str:
    """``OpenSession`` → ``open session``."""
    name = type(action).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _text(entries: list[dict[str, Any]], sent: int, sequence: int) -> str:
    rows = [
        (
            one["time"][:19].replace("T", " "),
            one["direction"],
            one["kind"] + ("" if one["ok"] else " (failed)"),
            format_dllm(one["amount_udllm"]),
            format_dllm(one["fee_udllm"]),
            one["other"],
            one["memo"],
        )
        for one in entries
    ]
    if not rows:
        return "no transactions yet"
    shown = table(("TIME (UTC)", "", "WHAT", "DLLM", "FEE", "WITH", "MEMO"), rows)
    whole = "all that you ever sent" if sent == sequence else f"{sent} of the {sequence} that you sent"
    return f"{shown}\neach proved in its block; {whole}"


def _write_csv(path: Path, entries: list[dict[str, Any]]) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in entry.items()} for entry in entries)
    try:
        write_private(path.absolute(), out.getvalue().encode())
    except OSError as error:
        raise UsageRefused(f"{path} cannot be written: {error.strerror}") from error


def _harmless(value: object) -> object:
    """A spreadsheet runs cells that begin like a formula; a stranger chooses the memo."""
    text = value if isinstance(value, str) else None
    return f"'{text}" if text is not None and text[:1] in ("=", "+", "-", "@") else value
