"""Describing the joined network for others: with a fresh root that this machine verified, signed by its person."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from dllm_chat.network.witnesses import WITNESSES_MAX, distinct
from dllm_chat.paths import Paths, write_private
from dllm_protocol.bundle import NetworkBundle, SignedBundle, sign_bundle
from dllm_protocol.errors import UsageRefused
from dllm_protocol.header import Header
from dllm_protocol.signing import SeedSigner, Signer

KEY_FILE = "publisher_key"
_SEED_BYTES = 32


def with_fresh_root(bundle: NetworkBundle, own: tuple[str, ...], root: Header) -> NetworkBundle:
    """The same network, with a root verified now and this person's witnesses beside the publisher's.

    Args:
        root: the newest header that the light client verified.
    """
    named = set(distinct(bundle.sources))
    witnesses = [url for url in distinct([*bundle.sources, *bundle.witnesses, *own]) if url not in named]
    return replace(
        bundle,
        trust_height=root.height,
        trust_hash=root.hash(),
        witnesses=tuple(witnesses)[:WITNESSES_MAX],
    )


def sign_as_person(paths: Paths, bundle: NetworkBundle) -> SignedBundle:
    """Sign with this home's publisher key, which vouches for bundles and for nothing else.

    Raises:
        UsageRefused: the key's file is damaged.
    """
    return sign_bundle(_publisher_key(paths.data / KEY_FILE), bundle)


def _publisher_key(file: Path) -> Signer:
    """The key in a file of mode 0600, made at the first use."""
    try:
        seed = bytes.fromhex(file.read_text().strip())
    except FileNotFoundError:
        seed = secrets.token_bytes(_SEED_BYTES)
        write_private(file, seed.hex().encode() + b"\n")
    except (OSError, ValueError) as error:
        raise UsageRefused(f"{file} cannot be read: {error}") from error
    if len(seed) != _SEED_BYTES:
        raise UsageRefused(
            f"{file} holds {len(seed)} bytes, not {_SEED_BYTES}", hint="delete it to get a new key"
        )
    return SeedSigner(seed)
