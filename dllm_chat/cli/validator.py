"""`dllm validator list|show|stake|unstake|collect`."""

from __future__ import annotations

from typing import Annotated

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields, table
from dllm_chat.cli.passwords import PasswordFd, PasswordFile
from dllm_protocol.units import format_dllm

app = group(
    """Who signs the blocks, and with which stake behind it; all proved.

    \b
      dllm validator list
      dllm validator show 5BD3C8F2EA70F5E2B8B6B93F5BE6B4E2D1C0A9F8
      dllm validator stake 1500 --key-proof WORD    (from: dllm-node key --owner YOUR-ADDRESS)
      dllm validator unstake 5BD3C8… all
      dllm validator collect 5BD3C8…
    """
)

Validator = Annotated[
    str, typer.Argument(help="Address or public key of the validator's consensus key, in hexadecimal.")
]
WalletName = Annotated[str | None, typer.Option("--wallet", help="Another wallet than the default one.")]
AccountIndex = Annotated[int | None, typer.Option("--account", min=0, help="Another account than account 0.")]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Check and price it; send nothing.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Agree beforehand.")]


@command(app, "list")
async def list_validators() -> Report:
    """Who has a seat and who waits for one, highest stake first."""
    from dllm_chat.cli.service import watching
    from dllm_chat.cli.validators import validators_data

    async with watching() as service:
        data = await validators_data(service.chain)
    rows = [
        (
            one["validator"],
            format_dllm(one["stake_udllm"]),
            str(one["power"]),
            f"{one['share_ppm'] / 10_000:.2f} %" if one["seated"] else "waits",
        )
        for one in data["validators"]
    ]
    shown = table(("VALIDATOR", "STAKE", "POWER", "SHARE"), rows)
    seats = f"{data['seated']} of {data['seats']} seats taken, proved at height {data['height']}"
    return Report(data, f"{shown}\n{seats}")


@command(app, "show")
async def show(validator: Validator) -> Report:
    """One validator: owner, stake, power, and what is on its way back."""
    from dllm_chat.cli.service import watching
    from dllm_chat.cli.validators import time_text, validator_data

    async with watching() as service:
        data = await validator_data(service.chain, validator)
    shown = {name: value for name, value in data.items() if name not in ("unbonding", "stake_udllm")}
    shown["stake"] = f"{format_dllm(data['stake_udllm'])} DLLM"
    shown["on_its_way_back"] = [
        f"{format_dllm(one['amount_udllm'])} DLLM from {time_text(one['release_time_ms'])}"
        for one in data["unbonding"]
    ] or "nothing"
    return Report(data, fields(shown))


@command(app, "stake")
async def stake(
    amount: Annotated[str, typer.Argument(help="DLLM, such as 1500.")],
    key_proof: Annotated[
        str, typer.Option(help="A new validator: the word that `dllm-node key --owner ADDRESS` prints.")
    ] = "",
    validator: Annotated[str, typer.Option(help="More for your validator with this address.")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    wallet: WalletName = None,
    account: AccountIndex = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Lock DLLM behind a validator; with enough of them it takes a seat and signs blocks.

    \b
      dllm-node key --home NODE --owner "$(dllm wallet address)"
      dllm validator stake 1500 --key-proof WORD
      dllm validator stake 500 --validator 5BD3C8…

    Run the node well: a validator that signs two blocks at one height loses a part of the stake and its seat for good.
    """
    from dllm_chat.cli.staking import Terms, stake_tokens

    terms = Terms(dry_run, yes, password_file, password_fd, {"wallet": wallet, "account": account})
    return await stake_tokens(amount, key_proof, validator, terms)


@command(app, "unstake")
async def unstake(
    validator: Validator,
    amount: Annotated[str, typer.Argument(help="DLLM, such as 500, or: all.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    wallet: WalletName = None,
    account: AccountIndex = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Start taking stake back; it can be collected once the chain's unbonding time is over."""
    from dllm_chat.cli.staking import Terms, unstake_tokens

    terms = Terms(dry_run, yes, password_file, password_fd, {"wallet": wallet, "account": account})
    return await unstake_tokens(validator, amount, terms)


@command(app, "collect")
async def collect(
    validator: Validator,
    dry_run: DryRun = False,
    yes: Yes = False,
    wallet: WalletName = None,
    account: AccountIndex = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Have stake paid out whose unbonding time is over."""
    from dllm_chat.cli.staking import Terms, collect_tokens

    terms = Terms(dry_run, yes, password_file, password_fd, {"wallet": wallet, "account": account})
    return await collect_tokens(validator, terms)
