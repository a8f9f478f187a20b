"""`dllm wallet address|balance|send|history`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command
from dllm_chat.cli.output import Report, fields
from dllm_chat.cli.passwords import PasswordFd, PasswordFile
from dllm_protocol.units import format_dllm

WalletName = Annotated[str | None, typer.Option("--wallet", help="Another wallet than the default one.")]
AccountIndex = Annotated[int | None, typer.Option("--account", min=0, help="Another account than account 0.")]


async def balance(wallet: WalletName = None, account: AccountIndex = None) -> Report:
    """What you have: spendable, in sessions, in bonds, earned and not yet claimed; proved at one height.

    \b
      dllm wallet balance
      dllm wallet balance --json
    """
    from dllm_chat.cli.bonds import bonds_data, bonds_of, bonds_text
    from dllm_chat.cli.service import watching
    from dllm_chat.dispatch.purse import NOBODY
    from dllm_chat.wallet.errors import NoSuchWallet

    async with watching(wallet=wallet, account=account) as service:
        if service.chain.purse.public_key == NOBODY:
            raise NoSuchWallet("there is no wallet yet", hint="dllm wallet create NAME makes one")
        await service.refresh()
        found = await service.balance()
        bonds = await bonds_of(service.chain, found.height)
        chain_id = service.chain_id
    data = {
        "address": found.address,
        "spendable_udllm": found.spendable_udllm,
        "in_sessions_udllm": found.in_sessions_udllm,
        "earned_unclaimed_udllm": found.earned_unclaimed_udllm,
        **bonds_data(bonds),
        "height": found.height,
        "play_money": found.play_money,
        "chain_id": chain_id,
    }
    money = "DLLM of play money" if found.play_money else "DLLM"
    shown: dict[str, object] = {
        "address": found.address,
        "spendable": f"{format_dllm(found.spendable_udllm)} {money}",
        "in sessions": f"{format_dllm(found.in_sessions_udllm)} (comes back with: dllm session close --all)",
        **bonds_text(bonds),
        "earned, unclaimed": format_dllm(found.earned_unclaimed_udllm),
        "proved": f"at height {found.height} of {chain_id}",
    }
    return Report(data, fields(shown))


async def send(
    to: Annotated[str, typer.Argument(help="An address, or a name from the address book.")],
    amount: Annotated[str, typer.Argument(help="DLLM, such as 1.5.")],
    memo: Annotated[str, typer.Option(help="A public note of at most 256 bytes.")] = "",
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Check and price it; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Agree beforehand.")] = False,
    trust_lookalike: Annotated[
        bool, typer.Option("--trust-lookalike", help="Send although it resembles another address you know.")
    ] = False,
    wallet: WalletName = None,
    account: AccountIndex = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Send DLLM, and wait for the proof that it arrived.

    \b
      dllm wallet send dllm1… 1.5
      dllm wallet send alice 0.25 --memo "thanks"
      dllm wallet send dllm1… 1.5 --yes --json --password-file FILE
    """
    from dllm_chat.cli.sending import Payment, send_payment

    payment = Payment(to, amount, memo, dry_run, yes, trust_lookalike)
    return await send_payment(payment, password_file, password_fd, wallet=wallet, account=account)


async def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write them to this file as CSV, too.")] = None,
    wallet: WalletName = None,
    account: AccountIndex = None,
) -> Report:
    """Transactions of your account, each proved to stand in its block with its result.

    \b
      dllm wallet history
      dllm wallet history --limit 100 --csv payments.csv

    A node can leave transactions out, but not invent them; what you sent is counted against your proved sequence.
    """
    from dllm_chat.cli.history import show_history

    return await show_history(limit, csv, wallet=wallet, account=account)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "balance")(balance)
    command(app, "send")(send)
    command(app, "history")(history)
