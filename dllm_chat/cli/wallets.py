"""What the wallet commands share."""

from __future__ import annotations

from typing import Any

from dllm_chat.paths import Paths, find_paths
from dllm_chat.session.networks import joined_network, pays_with_play_wallet
from dllm_chat.wallet.manager import WalletInfo, WalletManager

NETWORK_PREFIX = "dllm"


def prefix_in_use() -> tuple[Paths, str]:
    """Paths, and how addresses of one's own wallets begin: as on the joined network, else as on networks at large."""
    paths = find_paths()
    joined = joined_network(paths)
    return paths, joined.bundle.genesis.address_prefix if joined else NETWORK_PREFIX


def wallets(paths: Paths) -> WalletManager:
    """The wallets of this home."""
    return WalletManager(paths.wallets)


def wallet_data(info: WalletInfo, prefix: str) -> dict[str, Any]:
    """A locked wallet in JSON."""
    return {
        "name": info.name,
        "fingerprint": info.fingerprint.hex(),
        "default": info.is_default,
        "accounts": [
            {"index": one.index, "label": one.label, "address": one.address_text(prefix)}
            for one in info.accounts
        ],
    }


async def address_of_wallet(name: str | None, account: int) -> dict[str, Any]:
    """Address of a wallet's account; the play wallet's where that pays and no wallet is named."""
    from dllm_chat.wallet.errors import NoSuchWallet

    paths, prefix = prefix_in_use()
    if name is None and (joined_network(paths) is None or pays_with_play_wallet(paths, "")):
        from dllm_chat.cli.service import watching

        async with watching() as service:
            return {"address": service.address, "wallet": "", "account": 0, "play_money": True}
    info = wallets(paths).info(name)
    found = next((one for one in info.accounts if one.index == account), None)
    if found is None:
        raise NoSuchWallet(f"wallet {info.name} has no account {account}")
    return {
        "address": found.address_text(prefix),
        "wallet": info.name,
        "account": account,
        "play_money": False,
    }
