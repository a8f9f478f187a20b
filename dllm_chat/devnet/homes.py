"""Homes that ask on a devnet at once: joined to it, with a play wallet that its genesis funded.

Two homes are such: the devnet's own folder, which can be a DLLM_HOME, and the home from which it was started, as long
as no other network is in use there. A play wallet is made before the genesis that funds it, so it waits as a draft
until the chain has its name. Every other home joins as it would join any network, with a wallet of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dllm_chat.paths import Paths, make_private_folder
from dllm_chat.session.networks import (
    join_network,
    joined_network,
    leave_network,
    play_wallet_folder,
)
from dllm_chat.wallet.play_wallet import (
    PlayWallet,
    bind_play_wallet,
    create_play_wallet,
    has_play_wallet,
    play_wallet_address,
)
from dllm_protocol.bundle import SignedBundle

_DRAFT = ".devnet-wallet"


class OwnHome:
    """One such home."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    @property
    def _draft(self) -> Path:
        return self.paths.networks / _DRAFT

    @property
    def is_free(self) -> bool:
        """Whether no network is joined here."""
        return joined_network(self.paths) is None

    def make_wallet(self) -> PlayWallet:
        """A new play wallet, for a chain that is about to begin; an earlier draft goes away."""
        shutil.rmtree(self._draft, ignore_errors=True)
        return create_play_wallet(make_private_folder(self._draft))

    def bind_wallet(self, chain_id: str) -> None:
        """The chain began: the draft becomes its wallet here."""
        bind_play_wallet(self._draft, chain_id)
        place = play_wallet_folder(self.paths, chain_id)
        make_private_folder(place.parent)
        shutil.rmtree(place, ignore_errors=True)
        self._draft.rename(place)

    def adopt(self, signed: SignedBundle) -> bool:
        """Use the devnet here, where it funded a wallet of ours and no other network is in use.

        Returns:
            Whether the devnet is in use here now.
        """
        bundle = signed.bundle
        if has_play_wallet(self._draft):
            funded = {account.address for account in bundle.genesis.accounts}
            if play_wallet_address(self._draft) in funded:
                self.bind_wallet(bundle.chain_id)
            else:
                shutil.rmtree(self._draft)  # of a founding that came to nothing
        if not has_play_wallet(play_wallet_folder(self.paths, bundle.chain_id)):
            return False
        joined = joined_network(self.paths)
        if joined is not None and joined.bundle.chain_id != bundle.chain_id:
            return False
        join_network(self.paths, signed.encode(), confirmed_signer=signed.signer)
        return True

    def leave(self, chain_id: str) -> None:
        """Use the embedded network again, where the devnet is in use; its wallet stays."""
        joined = joined_network(self.paths)
        if joined is not None and joined.bundle.chain_id == chain_id:
            leave_network(self.paths)

    def forget(self, chain_id: str) -> None:
        """Leave, and remove what belongs to a chain that is gone for good."""
        self.leave(chain_id)
        shutil.rmtree(self.paths.networks / chain_id, ignore_errors=True)
