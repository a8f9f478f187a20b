"""`dllm faucet request`."""

from __future__ import annotations

from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields, progress
from dllm_chat.cli.wallet_money import AccountIndex, WalletName
from dllm_protocol.units import format_dllm

app = group(
    """Tokens of a test network, for nothing.

    \b
      dllm faucet request
      dllm faucet request --url http://host:26680
    """
)


@command(app, "request")
async def request(
    url: Annotated[str, typer.Option(help="Another faucet than the one that the network names.")] = "",
    wallet: WalletName = None,
    account: AccountIndex = None,
) -> Report:
    """Ask the test network's faucet for tokens, and wait for the proof that they came. Needs no password."""
    from dllm_chat.cli.service import watching
    from dllm_chat.dispatch.purse import NOBODY
    from dllm_chat.session.faucet import ask_faucet, until_proved
    from dllm_chat.wallet.errors import NoSuchWallet
    from dllm_protocol.errors import NotFound

    async with watching(wallet=wallet, account=account) as service:
        bundle, chain = service.bundle, service.chain
        if chain.purse.public_key == NOBODY:
            raise NoSuchWallet("there is no wallet yet", hint="dllm wallet create NAME makes one")
        faucet = url or bundle.faucet
        if not bundle.is_test or not faucet:
            raise NotFound(
                f"{bundle.chain_id} names no faucet",
                hint="only test networks have one; --url asks another one" if bundle.is_test else "",
            )
        before = await chain.reads.account(chain.purse.account)
        had_udllm = before.balance_udllm if before else 0
        progress(f"asking {faucet}")
        grant = await ask_faucet(faucet, service.address)
        balance_udllm = await until_proved(chain.reads, chain.purse.account, had_udllm + grant.amount_udllm)
        data = {
            "address": service.address,
            "amount_udllm": grant.amount_udllm,
            "balance_udllm": balance_udllm,
            "tx_hash": grant.tx_hash,
            "height": grant.height,
            "chain_id": bundle.chain_id,
            "faucet": faucet,
        }
    shown = {
        "address": data["address"],
        "got": f"{format_dllm(grant.amount_udllm)} DLLM of a test network",
        "proved": f"{format_dllm(balance_udllm)} DLLM, on {bundle.chain_id}",
    }
    return Report(data, fields(shown))
