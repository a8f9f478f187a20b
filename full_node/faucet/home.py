"""A faucet's folder.

faucet_key.json   the account that gives (0600)
bundle            the network that it gives on
grants.db         who got something lately
light.db          what its light node trusts
faucet.json       where the running faucet listens; gone when it stopped in order
faucet.lock       held while it runs
logs/node.log     rotating, one JSON object a line
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.bundle import SignedBundle
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.genesis import chain_id_of
from dllm_protocol.signing import SeedSigner
from full_node.faucet.errors import FaucetRefused
from full_node.files import make_private_folder, write_private
from full_node.keys import create_key, load_key

MAX_BUNDLE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FaucetHome:
    """Paths inside a faucet's folder."""

    folder: Path

    @property
    def key(self) -> Path:
        """The account's key."""
        return self.folder / "faucet_key.json"

    @property
    def bundle(self) -> Path:
        """The network."""
        return self.folder / "bundle"

    @property
    def grants(self) -> Path:
        """Who got something lately."""
        return self.folder / "grants.db"

    @property
    def light(self) -> Path:
        """What its light node trusts."""
        return self.folder / "light.db"

    @property
    def listening(self) -> Path:
        """Where the running faucet listens."""
        return self.folder / "faucet.json"

    @property
    def lock(self) -> Path:
        """Held while it runs."""
        return self.folder / "faucet.lock"

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.folder / "logs"


def faucet_key(home: FaucetHome) -> SeedSigner:
    """The account's key, made on first use. Raises KeyFileRefused."""
    make_private_folder(home.folder)
    return load_key(home.key) if home.key.exists() else create_key(home.key)


def faucet_network(home: FaucetHome, given: Path | None) -> SignedBundle:
    """The network's bundle: the one given, which is kept, else the one that was kept.

    Raises:
        FaucetRefused: there is none, it is damaged, of another chain than before, or not of a test network.
    """
    source = given or home.bundle
    signed = _read(source)
    bundle = signed.bundle
    if not bundle.is_test:
        raise FaucetRefused(
            f"addresses of {bundle.chain_id} begin with {bundle.genesis.address_prefix!r}: it is no test network",
            hint="tokens of a real network are worth something; a faucet would be emptied at once",
        )
    if given is None:
        return signed
    if home.bundle.exists() and (before := _read(home.bundle).bundle).genesis != bundle.genesis:
        raise FaucetRefused(
            f"{home.folder} is a faucet of {chain_id_of(before.genesis)}, {given} describes {bundle.chain_id}",
            hint="use another folder for another network",
        )
    write_private(home.bundle, signed.encode())
    return signed


def hold_faucet(home: FaucetHome) -> int:
    """Takes the folder for this process; the kernel lets go of it when the process ends. Raises FaucetRefused.

    Returns:
        The open file whose lock is held.
    """
    descriptor = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise FaucetRefused(f"another faucet runs from {home.folder} already") from error
    return descriptor


def _read(path: Path) -> SignedBundle:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise FaucetRefused(
            f"{path} cannot be read: {error.strerror}", hint="give the network's bundle with --bundle"
        ) from error
    try:
        signed = SignedBundle.decode(raw)
    except MalformedBytes as error:
        raise FaucetRefused(f"{path} is not a network's bundle: {error.message}") from error
    if signed.signer and not signed.signature_fits:
        raise FaucetRefused(f"the signature of {path} does not fit", hint="fetch it again from its publisher")
    return signed
