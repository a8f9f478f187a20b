"""`dllm wallet create|restore|list|address|chat-key|reveal-seed|passwd`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.cli.command import command
from dllm_chat.cli.output import Report, fields, table
from dllm_chat.cli.passwords import PasswordFd, PasswordFile, password_source, secret_from

Name = Annotated[str, typer.Argument(help="The wallet's name.")]
MaybeName = Annotated[str | None, typer.Argument(help="The wallet's name; the default one without.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="BIP-39 passphrase (not the password); changes every key."),
]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", min=0, help="The same from a descriptor.")
]
SeedOut = Annotated[
    Path | None,
    typer.Option("--seed-out", help="Write the words to this new file (0600) instead of the screen."),
]


def create(
    name: Name,
    words: Annotated[int, typer.Option(help="12 or 24.")] = 12,
    seed_out: SeedOut = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Make a wallet. Its words are shown once and asked back: whoever has them has the money.

    \b
      dllm wallet create main
      dllm wallet create main --words 24
      dllm wallet create robot --seed-out robot.seed --password-file robot.password
    """
    from dllm_chat.cli.seeds import create_wallet

    passphrase = secret_from(passphrase_file, passphrase_fd, "passphrase") or ""
    return create_wallet(name, words, seed_out, passphrase, password_source(password_file, password_fd))


async def restore(
    name: Name,
    seed_file: Annotated[Path | None, typer.Option("--seed-file", help="File with the words.")] = None,
    seed_fd: Annotated[
        int | None, typer.Option("--seed-fd", min=0, help="The same from a descriptor.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Bring a wallet back from its words.

    \b
      dllm wallet restore main
      dllm wallet restore main --seed-file main.seed --password-file FILE

    On a joined network the chain is asked which session numbers were used before.
    """
    from dllm_chat.cli.seeds import restore_wallet

    passphrase = secret_from(passphrase_file, passphrase_fd, "passphrase") or ""
    seed = secret_from(seed_file, seed_fd, "seed")
    return await restore_wallet(name, seed, passphrase, password_source(password_file, password_fd))


def list_wallets() -> Report:
    """Wallets of this home, with their accounts; no password is needed."""
    from dllm_chat.cli.wallets import prefix_in_use, wallet_data, wallets

    paths, prefix = prefix_in_use()
    found = [wallet_data(info, prefix) for info in wallets(paths).list()]
    rows = [
        (
            ("* " if one["default"] else "  ") + one["name"],
            one["fingerprint"],
            str(account["index"]),
            account["label"],
            account["address"],
        )
        for one in found
        for account in one["accounts"]
    ]
    heads = ("  WALLET", "FINGERPRINT", "ACCOUNT", "LABEL", "ADDRESS")
    empty = "no wallets yet: dllm wallet create NAME (the embedded network needs none)"
    return Report({"wallets": found}, table(heads, rows) if rows else empty)


async def address(
    name: MaybeName = None,
    account: Annotated[int, typer.Option(min=0, help="Index of the account.")] = 0,
) -> Report:
    """The address to be paid at: of a wallet, or of the play wallet while no network is joined.

    \b
      dllm wallet address
      dllm wallet address main --account 1
    """
    from dllm_chat.cli.wallets import address_of_wallet

    data = await address_of_wallet(name, account)
    return Report(data, str(data["address"]))


def reveal_seed(
    name: MaybeName = None,
    seed_out: SeedOut = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """Show a wallet's words again. Whoever sees them can take everything.

    \b
      dllm wallet reveal-seed main
      dllm wallet reveal-seed main --seed-out main.seed --password-file FILE
    """
    from dllm_chat.cli.seeds import reveal

    return reveal(name, seed_out, password_source(password_file, password_fd))


def passwd(
    name: MaybeName = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
    new_password_file: Annotated[
        Path | None, typer.Option("--new-password-file", help="The new one.")
    ] = None,
    new_password_fd: Annotated[
        int | None, typer.Option("--new-password-fd", min=0, help="The same from a descriptor.")
    ] = None,
) -> Report:
    """Change a wallet's password. Copies of its file still open with the old one.

    \b
      dllm wallet passwd main
      dllm wallet passwd main --password-file OLD --new-password-file NEW
    """
    from dllm_chat.cli.wallets import prefix_in_use, wallets
    from dllm_chat.wallet.hardening import harden_process

    harden_process()
    paths, _ = prefix_in_use()
    manager = wallets(paths)
    old = password_source(password_file, password_fd)
    new = password_source(new_password_file, new_password_fd, "new-password")
    manager.change_password(name, old, new)
    return Report({"wallet": manager.resolve(name)}, "the password was changed")


async def chat_key(
    cap: Annotated[
        str | None, typer.Option(help="Grant a key that may spend this many DLLM on answers.")
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the grant back.")] = False,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> Report:
    """A capped key that asks while the wallet stays locked: it opens, tops up and closes sessions, no more.

    \b
      dllm wallet chat-key
      dllm wallet chat-key --cap 5
      dllm wallet chat-key --revoke
    """
    from dllm_chat.cli.chat_keys import change_chat_key, show_chat_key

    if cap is None and not revoke:
        data = await show_chat_key()
        return Report(data, fields(data))
    data = await change_chat_key(cap, password_file, password_fd, revoke=revoke)
    return Report(data, fields(data))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "create")(create)
    command(app, "restore")(restore)
    command(app, "list")(list_wallets)
    command(app, "address")(address)
    command(app, "chat-key")(chat_key)
    command(app, "reveal-seed")(reveal_seed)
    command(app, "passwd")(passwd)
