"""A wallet's words: shown once and asked back, typed in, or kept in a file of the person's choosing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dllm_chat.cli.confirming import ask_line
from dllm_chat.cli.output import Report, alternate_screen, clear_screen, note
from dllm_chat.cli.passwords import person_is_there
from dllm_chat.cli.wallets import prefix_in_use, wallet_data, wallets
from dllm_chat.wallet.hardening import harden_process
from dllm_chat.wallet.mnemonic import generate_entropy, words_of
from dllm_chat.wallet.password import PasswordSource
from dllm_chat.wallet.verification import pick_positions, wrong_positions
from dllm_protocol.errors import Declined, UsageRefused

MAX_TRIES = 3
REVEAL_PHRASE = "show my words"
WORDS_A_LINE = 4


class SeedFileRefused(UsageRefused):
    """The words cannot be written where they should."""

    code = "E_SEED_OUT"


def create_wallet(
    name: str, word_count: int, seed_out: Path | None, passphrase: str, source: PasswordSource
) -> Report:
    """A new wallet, once its words are known to be kept."""
    harden_process()
    paths, prefix = prefix_in_use()
    manager = wallets(paths)
    manager.check_name(name)
    mnemonic = words_of(generate_entropy(word_count))
    if seed_out is None:
        _screen_needed()
        _show_and_ask_back(mnemonic)
        manager.restore(name, mnemonic, source, passphrase=passphrase).lock()
    else:
        _with_seed_file(
            seed_out, mnemonic, lambda: manager.restore(name, mnemonic, source, passphrase=passphrase).lock()
        )
    data = wallet_data(manager.info(name), prefix) | {"seed_file": str(seed_out) if seed_out else ""}
    kept = f"\nits words are in {seed_out}: move that file to a safe place" if seed_out else ""
    return Report(data, _made(data) + kept)


async def restore_wallet(name: str, seed: str | None, passphrase: str, source: PasswordSource) -> Report:
    """A wallet from its words."""
    harden_process()
    paths, prefix = prefix_in_use()
    manager = wallets(paths)
    manager.check_name(name)
    if seed is None:
        _screen_needed("--seed-file")
        seed = _type_words()
    wallet = manager.restore(name, seed, source, passphrase=passphrase)
    try:
        from dllm_chat.cli.used_sessions import skip_used_sessions

        skipped = await skip_used_sessions(paths, wallet)
    finally:
        wallet.lock()
    data = wallet_data(manager.info(name), prefix) | skipped
    return Report(data, _made(data))


def reveal(name: str | None, seed_out: Path | None, source: PasswordSource) -> Report:
    """The words again, after the password."""
    harden_process()
    paths, _ = prefix_in_use()
    manager = wallets(paths)
    name = manager.resolve(name)
    if seed_out is None:
        _screen_needed()
    mnemonic = manager.reveal_mnemonic(name, source)
    if seed_out is not None:
        _with_seed_file(seed_out, mnemonic, lambda: None)
        return Report({"wallet": name, "seed_file": str(seed_out)}, f"the words are in {seed_out}")
    typed = ask_line(f"Whoever sees the words can take everything. Type: {REVEAL_PHRASE}\n> ")
    if typed.strip() != REVEAL_PHRASE:
        raise Declined("the phrase was not typed: nothing was shown")
    with alternate_screen():
        _page(mnemonic)
        ask_line("\nPress Enter to hide them. ")
    return Report({"wallet": name, "seed_file": ""}, "the words were shown")


def _show_and_ask_back(mnemonic: str) -> None:
    """Show the words, then ask for some of them, all on the alternate screen.

    Raises:
        Declined: they were wrong too often: nothing was made.
    """
    with alternate_screen():
        for _ in range(MAX_TRIES):
            _page(mnemonic)
            ask_line("\nWrite them down in this order, on paper. Then press Enter. ")
            clear_screen()
            asked = pick_positions(len(mnemonic.split()))
            answers = {position: ask_line(f"Word {position}: ") for position in asked}
            clear_screen()
            wrong = wrong_positions(mnemonic, answers)
            if not wrong:
                return
            listed = ", ".join(str(position) for position in wrong)
            note(f"Not right: word {listed}. Here they are again.\n")
    raise Declined(f"the words were not repeated rightly in {MAX_TRIES} tries: no wallet was made")


def _type_words() -> str:
    with alternate_screen():
        return ask_line("Type the 12 or 24 words in their order, then Enter:\n> ")


def _page(mnemonic: str) -> None:
    words = mnemonic.split()
    note("These words ARE the wallet. Nobody can bring them back for you.\n")
    for first in range(0, len(words), WORDS_A_LINE):
        line = (
            f"{first + at + 1:2} {word:<10}" for at, word in enumerate(words[first : first + WORDS_A_LINE])
        )
        note("  ".join(line))


def _screen_needed(instead: str = "--seed-out") -> None:
    """Words go to a person at a real terminal, or to a file, never into a pipe or a scrollback."""
    if not person_is_there():
        raise SeedFileRefused("the words need somebody at the terminal", hint=f"give {instead} FILE")
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise SeedFileRefused(
            "this terminal has no second screen: the words would stay in its scrollback",
            hint=f"give {instead} FILE",
        )


def _with_seed_file(path: Path, mnemonic: str, work: Callable[[], Any]) -> None:
    """Write the words to a new private file first, so that no wallet exists whose words are lost."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise SeedFileRefused(f"{path} exists already", hint="name a new file") from error
    except OSError as error:
        raise SeedFileRefused(f"{path} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(mnemonic + "\n")
            file.flush()
            os.fsync(file.fileno())
        work()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _made(data: dict[str, Any]) -> str:
    account = data["accounts"][0]
    return f"wallet {data['name']} ({data['fingerprint']})\naddress {account['address']}"
