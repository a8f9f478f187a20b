"""Opening the network for one command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dllm_chat.cli.output import progress
from dllm_chat.cli.passwords import password_source
from dllm_chat.config import Config, load_config
from dllm_chat.paths import Paths, find_paths
from dllm_chat.wallet.hardening import harden_process
from dllm_protocol.errors import WalletLocked

if TYPE_CHECKING:
    from dllm_chat.session.service import ChatService
    from dllm_chat.wallet.open_wallet import UnlockedWallet


def settings(**flags: object) -> tuple[Paths, Config]:
    """Paths and settings in force; ``flags`` are the settings typed on the command line."""
    paths = find_paths()
    return paths, load_config(paths.config_file, flags=flags)


@asynccontextmanager
async def watching(**flags: object) -> AsyncIterator[ChatService]:
    """The network in use, to look and not to sign."""
    from dllm_chat.session.service import ChatService

    paths, config = settings(**flags)
    async with _opened(ChatService(paths, config, watch_only=True)) as service:
        yield service


@asynccontextmanager
async def paying(
    password_file: Path | None, password_fd: int | None, *, chat_key_will_do: bool = True, **flags: object
) -> AsyncIterator[ChatService]:
    """The network in use, with keys: the play wallet, or the wallet whose password was given, or the chat key.

    Args:
        chat_key_will_do: without a password option, let the chat key sign; else the person is asked.

    Raises:
        WalletLocked: a joined network, and no key to sign with.
    """
    from dllm_chat.session.networks import joined_network, pays_with_play_wallet
    from dllm_chat.session.service import ChatService

    paths, config = settings(**flags)
    wallet: UnlockedWallet | None = None
    given = password_file is not None or password_fd is not None
    plays = joined_network(paths) is None or (not given and pays_with_play_wallet(paths, config.wallet))
    if not plays and (given or not (chat_key_will_do and _chat_key_there(paths, config))):
        wallet = _unlocked(paths, config, password_file, password_fd)
    try:
        async with _opened(ChatService(paths, config, wallet)) as service:
            yield service
    finally:
        if wallet is not None:
            wallet.lock()


def _chat_key_there(paths: Paths, config: Config) -> bool:
    from dllm_chat.wallet.chat_key import ChatKeyStore
    from dllm_chat.wallet.manager import WalletManager
    from dllm_chat.wallet.wrapping_key import Choice, WrappingKeys

    folder = WalletManager(paths.wallets).folder_of(config.wallet or None)
    try:
        ChatKeyStore(folder, WrappingKeys(cast(Choice, config.keyring_backend))).load(config.account).lock()
    except WalletLocked:
        return False
    return True


def _unlocked(
    paths: Paths, config: Config, password_file: Path | None, password_fd: int | None
) -> UnlockedWallet:
    """In this thread, so that Ctrl-C ends the question; nothing else runs yet."""
    from dllm_chat.wallet.manager import WalletManager

    harden_process()
    source = password_source(password_file, password_fd)
    return WalletManager(paths.wallets).unlock(config.wallet or None, source)


@asynccontextmanager
async def _opened(service: ChatService) -> AsyncIterator[ChatService]:
    try:
        await service.open(progress)
        yield service
    finally:
        await service.aclose()
