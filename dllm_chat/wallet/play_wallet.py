"""A play wallet: no words, no password, and good for one chain only, the embedded network's or a devnet's.

Its seed is random and lies in a file (0600). The address must be known before genesis, which funds it, and the
chain id comes from genesis; so a play wallet is made first and bound to its chain once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dllm_chat.paths import file_lock
from dllm_chat.wallet.errors import WalletExists, WrongChain
from dllm_chat.wallet.json_file import hex_field, read_json, write_json
from dllm_chat.wallet.keys import KeyTree
from dllm_chat.wallet.open_wallet import OpenWallet
from dllm_chat.wallet.profile import SessionCounter

FORMAT = "dllm-play-wallet"
VERSION = 1
SEED_BYTES = 32


class PlayWallet(OpenWallet):
    """Play money's wallet. Signs for the chain that it is bound to."""

    def __init__(self, keys: KeyTree, sessions: SessionCounter, chain_id: str) -> None:
        super().__init__("play", keys, sessions)
        self.chain_id = chain_id
        """Empty until bound."""

    def check_chain(self, chain_id: str) -> None:
        """Raises WrongChain for any chain but its own."""
        _check_chain(self.chain_id, chain_id)


def create_play_wallet(
    folder: Path, random_bytes: Callable[[int], bytes] = secrets.token_bytes
) -> PlayWallet:
    """Make the wallet of a chain that is about to begin.

    Raises:
        WalletExists: the folder has one, bound or not.
    """
    with file_lock(folder / "play_wallet.lock"):
        path = _file(folder)
        if path.exists():
            raise WalletExists(f"there is a play wallet at {path} already")
        _write(path, random_bytes(SEED_BYTES), "")
        return _open(folder)


def bind_play_wallet(folder: Path, chain_id: str) -> PlayWallet:
    """Tie the wallet to its chain, for good; again with the same chain changes nothing.

    Raises:
        WrongChain: it belongs to another chain.
        FileNotFoundError: there is none.
    """
    if not chain_id:
        raise WrongChain("a chain id is not empty")
    with file_lock(folder / "play_wallet.lock"):
        content = read_json(_file(folder), FORMAT, VERSION)
        bound = str(content["chain_id"])
        if bound:
            _check_chain(bound, chain_id)
        else:
            _write(_file(folder), hex_field(content, "seed", SEED_BYTES), chain_id)
        return _open(folder)


def has_play_wallet(folder: Path) -> bool:
    """Whether a play wallet lies there."""
    return _file(folder).is_file()


def play_wallet_address(folder: Path) -> bytes:
    """Address of a play wallet's account 0 (20 bytes), bound or not.

    Raises:
        FileDamaged, FileNotFoundError
    """
    with _open(folder) as wallet:
        return wallet.account_key().address


def open_play_wallet(folder: Path, chain_id: str) -> PlayWallet:
    """The play wallet of the chain ``chain_id``.

    Raises:
        WrongChain: it belongs to another chain, or to none yet.
        FileDamaged: bytes were changed.
        FileNotFoundError: there is none.
    """
    wallet = _open(folder)
    try:
        wallet.check_chain(chain_id)
    except WrongChain:
        wallet.lock()
        raise
    return wallet


def _check_chain(bound: str, asked: str) -> None:
    if asked != bound or not bound:
        raise WrongChain(
            f"the play wallet belongs to {bound or 'no chain yet'!r}, not to {asked[:80]!r}",
            hint="make a wallet of your own for a real network: dllm wallet create NAME",
        )


def _open(folder: Path) -> PlayWallet:
    content: dict[str, Any] = read_json(_file(folder), FORMAT, VERSION)
    seed = hex_field(content, "seed", SEED_BYTES)
    return PlayWallet(KeyTree(seed), SessionCounter(folder), str(content.get("chain_id", "")))


def _write(path: Path, seed: bytes, chain_id: str) -> None:
    write_json(path, {"format": FORMAT, "version": VERSION, "seed": seed.hex(), "chain_id": chain_id})


def _file(folder: Path) -> Path:
    return folder / "play_wallet.json"
