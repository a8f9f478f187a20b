"""Networks that the person joined: one folder each with the signed bundle; ``current`` names the one in use."""

from __future__ import annotations

from pathlib import Path

from dllm_chat.paths import Paths, write_private
from dllm_chat.wallet.play_wallet import has_play_wallet
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.errors import MalformedBytes, NotFound, UsageRefused, VerificationFailed

CURRENT = "current"
BUNDLE = "bundle"
PLAY_WALLET = "wallet"
LIGHT_STORE = "light.db"
_MAX_BUNDLE_BYTES = 4 << 20


class BundleRefused(VerificationFailed):
    """A network description that is damaged or not signed by whom it says."""

    code = "E_BUNDLE"


def joined_network(paths: Paths) -> SignedBundle | None:
    """The network in use; None where none was joined (then the embedded one is used).

    Raises:
        BundleRefused: its file was changed.
    """
    name = network_in_use(paths)
    return _read(paths.networks / name / BUNDLE) if name else None


def network_in_use(paths: Paths) -> str:
    """The chain id of the joined network in use; empty where none was joined."""
    try:
        return (paths.networks / CURRENT).read_text().strip()
    except OSError:
        return ""


def known_network(paths: Paths, chain_id: str) -> SignedBundle | None:
    """The bundle that a network was last joined with, in use or not; None where it never was.

    Raises:
        BundleRefused: its file was changed.
    """
    # A chain id may be a stranger's: it picks among the folders that are there, and is never made into a path.
    folders = paths.networks.iterdir() if paths.networks.is_dir() else ()
    file = next((folder / BUNDLE for folder in folders if folder.name == chain_id), None)
    return _read(file) if file is not None and file.exists() else None


def light_store_file(paths: Paths, chain_id: str) -> Path:
    """Where the light node's trust in a joined network lies."""
    return paths.networks / chain_id / LIGHT_STORE


def join_network(paths: Paths, raw: bytes, *, confirmed_signer: bytes) -> SignedBundle:
    """Keep a bundle and use its network from now on; `network.joining` asks first whether that is wise.

    Args:
        confirmed_signer: the signer's key that the person compared by fingerprint.

    Raises:
        BundleRefused: damaged, unsigned, or signed by another key.
    """
    signed = decode_bundle(raw)
    if not signed.signer or not signed.signature_fits:
        raise BundleRefused("the bundle's signature does not fit", hint="fetch it again from its publisher")
    if signed.signer != confirmed_signer:
        raise BundleRefused(
            f"the bundle is signed by {signed.signer.hex()}, confirmed was {confirmed_signer.hex()}"
        )
    chain_id = signed.bundle.chain_id
    known = paths.networks / chain_id / BUNDLE
    if known.exists() and _read(known).bundle.genesis != signed.bundle.genesis:
        raise BundleRefused(f"network {chain_id} is known with another genesis")
    write_private(known, raw)
    write_private(paths.networks / CURRENT, chain_id.encode())
    return signed


def play_wallet_folder(paths: Paths, chain_id: str) -> Path:
    """Where the play wallet of a network lies in the home of whoever runs it for trying things (a devnet)."""
    return paths.networks / chain_id / PLAY_WALLET


def pays_with_play_wallet(paths: Paths, wallet_name: str) -> bool:
    """Whether a play wallet pays on the joined network: it lies there, and no other wallet is named."""
    joined = joined_network(paths)
    if joined is None or wallet_name:
        return False
    return has_play_wallet(play_wallet_folder(paths, joined.bundle.chain_id))


def leave_network(paths: Paths) -> None:
    """Use the embedded network again; the joined one's files stay.

    Raises:
        NotFound: none was joined.
    """
    current = paths.networks / CURRENT
    if not current.exists():
        raise NotFound("no network was joined: the embedded one is in use already")
    write_private(current, b"")


def _read(path: Path) -> SignedBundle:
    try:
        if path.stat().st_size > _MAX_BUNDLE_BYTES:
            raise UsageRefused(f"{path} is too large to be a bundle")
        raw = path.read_bytes()
    except OSError as error:
        raise BundleRefused(
            f"{path} cannot be read: {error.strerror}", hint="join the network again"
        ) from error
    return decode_bundle(raw)


def decode_bundle(raw: bytes) -> SignedBundle:
    """A stranger's bytes as a bundle, whose signature is not looked at. Raises BundleRefused."""
    try:
        return SignedBundle.decode(raw)
    except MalformedBytes as error:
        raise BundleRefused(f"the bundle is damaged: {error.message}") from error
