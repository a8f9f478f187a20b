"""The validator's key: one Ed25519 key in CometBFT's priv_validator_key.json form, readable by the owner
only.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from pathlib import Path

from dllm_protocol.errors import MalformedBytes, UsageRefused
from dllm_protocol.json_shape import base64_bytes, shape, to_base64, to_hex
from dllm_protocol.signing import SeedSigner
from dllm_protocol.validator_set import address_of
from full_node.files import write_private

SEED_BYTES = 32
_PRIVATE_TYPE = "tendermint/PrivKeyEd25519"
_PUBLIC_TYPE = "tendermint/PubKeyEd25519"


class KeyFileRefused(UsageRefused):
    """The key file is missing, damaged, or open to others."""

    code = "E_KEY_FILE"


def create_key(path: Path) -> SeedSigner:
    """Makes a new key and its file (0600). Raises KeyFileRefused when the file is there already."""
    if path.exists():
        raise KeyFileRefused(f"{path} exists already", hint="a validator key is never replaced silently")
    seed = secrets.token_bytes(SEED_BYTES)
    signer = SeedSigner(seed)
    document = {
        "address": to_hex(address_of(signer.public_key)),
        "pub_key": {"type": _PUBLIC_TYPE, "value": to_base64(signer.public_key)},
        "priv_key": {"type": _PRIVATE_TYPE, "value": to_base64(seed + signer.public_key)},
    }
    write_private(path, json.dumps(document, indent=2).encode() + b"\n")
    return signer


def load_key(path: Path) -> SeedSigner:
    """Reads a key file. Raises KeyFileRefused."""
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_bytes()
    except OSError as error:
        raise KeyFileRefused(
            f"{path} cannot be read: {error.strerror}", hint="run `dllm-node init` first"
        ) from error
    if mode & 0o077:
        raise KeyFileRefused(f"{path} has mode {mode:04o}, others could read it", hint=f"chmod 600 {path}")
    try:
        document = shape("key file", json.loads(text), ("address", "pub_key", "priv_key"))
        private = shape("priv_key", document["priv_key"], ("type", "value"))
        both = base64_bytes("priv_key", private["value"], 64)
    except (ValueError, RecursionError, MalformedBytes, binascii.Error):
        # Not chained: what could not be read may hold the secret.
        raise KeyFileRefused(f"{path} is not a validator key file", hint="restore it from a backup") from None
    if private["type"] != _PRIVATE_TYPE or len(both) != 2 * SEED_BYTES:
        raise KeyFileRefused(f"{path} holds no Ed25519 key of 64 bytes", hint="restore it from a backup")
    signer = SeedSigner(both[:SEED_BYTES])
    if signer.public_key != both[SEED_BYTES:]:
        raise KeyFileRefused(
            f"{path} holds a private key of another public key than "
            f"{base64.b64encode(both[SEED_BYTES:]).decode()}",
            hint="restore it from a backup",
        )
    return signer
