"""`dllm wallet chat-key`: grant, show, revoke."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from dllm_chat.cli.service import paying, watching
from dllm_chat.dispatch.purse import WalletPurse
from dllm_chat.session.service import ChatService
from dllm_chat.wallet.chat_key import ChatKeyStore
from dllm_chat.wallet.manager import WalletManager
from dllm_chat.wallet.wrapping_key import Choice, WrappingKeys
from dllm_protocol import records, state_keys
from dllm_protocol.actions import GrantChatKey
from dllm_protocol.errors import UsageRefused, WalletLocked
from dllm_protocol.units import parse_dllm


async def show_chat_key() -> dict[str, Any]:
    """The grant that stands on chain, proved."""
    async with watching() as service:
        chain = service.chain
        found = await chain.reads.record(records.ChatKey, state_keys.chat_key(chain.purse.account))
    return {
        "granted": found is not None,
        "public_key": found.public_key.hex() if found else "",
        "remaining_udllm": found.remaining_udllm if found else 0,
    }


async def change_chat_key(
    cap: str | None, password_file: Path | None, password_fd: int | None, *, revoke: bool
) -> dict[str, Any]:
    """Grant a chat key up to ``cap`` DLLM, or take the grant back.

    Raises:
        UsageRefused: both or neither, or the embedded network, whose play wallet is never locked.
    """
    if revoke and cap is not None:
        raise UsageRefused("--cap and --revoke were both given", hint="give one of them")
    cap_udllm = 0 if cap is None else parse_dllm(cap)
    async with paying(password_file, password_fd, chat_key_will_do=False) as service:
        if service.play_money:
            raise UsageRefused(
                "the play wallet is never locked: it needs no chat key", hint="join a network first"
            )
        purse = service.chain.purse
        if not isinstance(purse, WalletPurse):
            raise WalletLocked("granting needs the wallet itself", hint="give --password-file")
        store, account = _store(service), service.config.account
        public_key = b"" if revoke else store.save(purse.wallet, cap_udllm, account)
        sent = await service.chain.sender.send(purse, (GrantChatKey(public_key, cap_udllm),))
        if revoke:
            store.forget(account)
    return {
        "granted": not revoke,
        "public_key": public_key.hex(),
        "cap_udllm": cap_udllm,
        "tx_hash": sent.tx_hash.hex().upper(),
        "height": sent.height,
        "fee_udllm": sent.fee_udllm,
    }


def _store(service: ChatService) -> ChatKeyStore:
    folder = WalletManager(service.paths.wallets).folder_of(service.config.wallet or None)
    return ChatKeyStore(folder, WrappingKeys(cast(Choice, service.config.keyring_backend)))
