"""Which network, whose money: the joined network with a wallet of one's own, or the embedded one with play money."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from dllm_chat.config import Config
from dllm_chat.contributing import Contributing
from dllm_chat.dispatch.purse import NOBODY, ChatKeyPurse, WalletPurse, WatchedPurse
from dllm_chat.dispatch.sessions import Purse
from dllm_chat.embedded.door import EmbeddedLease, join_embedded
from dllm_chat.embedded.patient_source import PatientSource
from dllm_chat.network.lighting import light_client_of
from dllm_chat.network.witnesses import own_witnesses
from dllm_chat.paths import Paths
from dllm_chat.serving_from import ServingFrom
from dllm_chat.serving_pieces import ServingPieces
from dllm_chat.session.conversation import Chain
from dllm_chat.session.events import WorkerStatus
from dllm_chat.session.networks import (
    joined_network,
    light_store_file,
    pays_with_play_wallet,
    play_wallet_folder,
)
from dllm_chat.wallet.chat_key import ChatKeyStore
from dllm_chat.wallet.errors import NoSuchWallet
from dllm_chat.wallet.manager import WalletManager
from dllm_chat.wallet.open_wallet import OpenWallet
from dllm_chat.wallet.play_wallet import PlayWallet, open_play_wallet
from dllm_chat.wallet.wrapping_key import Choice, WrappingKeys
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.errors import WalletLocked
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient
from light_node.clock import SystemClock
from light_node.source import RpcSource
from light_node.trust_store import TrustStore


class Connection:
    """A network in use."""

    def __init__(
        self,
        bundle: NetworkBundle,
        light: LightClient,
        store: TrustStore,
        purse: Purse,
        contributing: Contributing,
        lease: EmbeddedLease | None,
    ) -> None:
        self.bundle = bundle
        self.light = light
        self.purse = purse
        self.lease = lease
        self.contributing = contributing
        self._store = store

    @property
    def play_money(self) -> bool:
        """Whether what is paid with is worth nothing anywhere else."""
        purse = self.purse
        return isinstance(purse, WalletPurse) and isinstance(purse.wallet, PlayWallet)

    @property
    def lost(self) -> bool:
        """Whether the embedded network under it has ended."""
        return self.lease is not None and self.lease.lost

    async def sync(self) -> None:
        """Verify the newest header.

        An embedded chain may have slept longer than trust lasts. Its home is ours: there its own newest header is as
        good a root as any, if it leads back to what was trusted.

        Raises:
            See `LightClient.sync`.
        """
        if self.lease is not None and self._expired():
            tip = (await self.light.primary.signed_header(None)).header
            about = self.bundle
            await self.light.refresh_root(trust_options_of(about, tip.height, tip.hash()))
        await self.light.sync()

    def _expired(self) -> bool:
        """Whether there is trust, and all of it is too old."""
        known = self.light.status()
        return bool(known.hash) and known.expires_in_s <= 0

    async def preferred_model(self) -> str:
        """The model that the embedded network's own workers serve; empty elsewhere."""
        return self.lease.preferred_model if self.lease else ""

    def earned_unclaimed_udllm(self) -> int:
        """What this home's worker earned and did not claim yet."""
        return self.contributing.earned_unclaimed_udllm()

    async def worker_on(
        self,
        chain: Chain,
        model_file: Path | None,
        server: ServingFrom | None,
        pieces: ServingPieces | None,
    ) -> None:
        """Start contributing."""
        await self.contributing.start(chain, self.bundle, model_file, server, pieces)

    async def worker_off(self) -> None:
        """Stop contributing."""
        await self.contributing.stop()

    def worker_status(self) -> WorkerStatus:
        """How the worker does."""
        return self.contributing.status()

    async def close(self) -> None:
        """Let go of everything."""
        await self.light.close()
        self._store.close()
        if self.lease is not None:
            await self.lease.release()


async def connect(
    paths: Paths,
    config: Config,
    on_progress: Callable[[str], None],
    wallet: OpenWallet | None = None,
    *,
    watch_only: bool = False,
) -> Connection:
    """Join the network in use.

    Args:
        wallet: an unlocked wallet to pay from; without one, the play wallet (embedded, or one's own devnet) or the
            chat key (joined).
        watch_only: on a joined network, need no key and sign nothing.

    Raises:
        WalletLocked: a joined network, no wallet and no chat key.
        EmbeddedFailed, NetworkUnreachable, …
    """
    joined = joined_network(paths)
    if joined is None:
        return await _connect_embedded(paths, config, on_progress)
    bundle = joined.bundle
    if wallet is None and pays_with_play_wallet(paths, config.wallet):
        wallet = open_play_wallet(play_wallet_folder(paths, bundle.chain_id), bundle.chain_id)
    purse = _purse(paths, config, wallet, watch_only=watch_only)
    store = TrustStore(light_store_file(paths, bundle.chain_id), bundle.chain_id)
    light = light_client_of(bundle, own_witnesses(paths, bundle.chain_id), store)
    contributing = Contributing(paths.data / "worker", None, wallet, config)
    return Connection(bundle, light, store, purse, contributing, None)


async def _connect_embedded(paths: Paths, config: Config, on_progress: Callable[[str], None]) -> Connection:
    lease = await join_embedded(paths, config.linger_s, on_progress, config.model_file)
    try:
        return await _on_lease(lease, config)
    except BaseException:
        await lease.release()
        raise


async def _on_lease(lease: EmbeddedLease, config: Config) -> Connection:
    bundle = lease.bundle
    wallet = open_play_wallet(lease.wallet_folder, bundle.chain_id)
    store = TrustStore(lease.home / "light.db", bundle.chain_id)
    node = PatientSource(RpcSource(bundle.sources[0]), lambda: lease.lost)
    light = LightClient(bundle.chain_id, trust_options_of(bundle), store, node, clock=SystemClock())
    connection = Connection(
        bundle,
        light,
        store,
        WalletPurse(wallet),
        Contributing(lease.worker_home, lease, wallet, config),
        lease,
    )
    try:
        await connection.sync()
    except BaseException:
        await light.close()
        raise
    return connection


def _purse(paths: Paths, config: Config, wallet: OpenWallet | None, *, watch_only: bool) -> Purse:
    if wallet is not None:
        return WalletPurse(wallet, config.account)
    return _watched_purse(paths, config) if watch_only else _chat_key_purse(paths, config)


def _watched_purse(paths: Paths, config: Config) -> WatchedPurse:
    """The account as the locked wallet shows it; nobody's where there is no wallet."""
    manager = WalletManager(paths.wallets)
    if not config.wallet and manager.default_name() is None:
        return WatchedPurse(NOBODY)
    accounts = manager.info(config.wallet or None).accounts
    found = next((account for account in accounts if account.index == config.account), None)
    if found is None:
        raise NoSuchWallet(f"this wallet has no account {config.account}")
    return WatchedPurse(found.public_key)


def _chat_key_purse(paths: Paths, config: Config) -> ChatKeyPurse:
    manager = WalletManager(paths.wallets)
    folder = manager.folder_of(config.wallet or None)
    keys = ChatKeyStore(folder, WrappingKeys(cast(Choice, config.keyring_backend)))
    try:
        return ChatKeyPurse(keys.load(config.account))
    except WalletLocked as error:
        raise WalletLocked(
            f"asking on this network needs a wallet: {error.message}",
            hint="let a capped key pay: dllm wallet chat-key --cap 5; or ask with dllm ask --password-file FILE",
        ) from error
