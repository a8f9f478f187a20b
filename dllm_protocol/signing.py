"""Ed25519 signatures through libsodium, each bound to one purpose by its domain tag."""

from __future__ import annotations

from typing import Protocol

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError, CryptoError

from dllm_protocol.hashing import Tag, domain


class Signer(Protocol):
    """Whoever holds a private key; nobody else ever sees it."""

    @property
    def public_key(self) -> bytes:
        """Ed25519 public key, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature over ``message``, 64 bytes."""
        ...


def sign_tagged(signer: Signer, tag: Tag, payload: bytes) -> bytes:
    """Sign ``payload`` for one purpose (64 bytes)."""
    return signer.sign(domain(tag) + payload)


def verify_tagged(public_key: bytes, tag: Tag, payload: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is this key's over ``payload`` for this purpose."""
    return verify(public_key, domain(tag) + payload, signature)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is this key's over ``message``, by libsodium's strict rules."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except (BadSignatureError, CryptoError):
        return False
    return True


def is_sound_key(public_key: bytes) -> bool:
    """Whether a public key is a canonical point of the curve's prime-order group, as every honestly made key is.

    Verifiers disagree about signatures under any other key: by ZIP-215 (CometBFT) some count, libsodium refuses.
    """
    return len(public_key) == 32 and crypto_core_ed25519_is_valid_point(public_key)


class SeedSigner:
    """A signer around a 32-byte Ed25519 seed in memory. Its repr shows the public key only."""

    __slots__ = ("_secret_key", "public_key")

    def __init__(self, seed: bytes) -> None:
        self.public_key: bytes
        self.public_key, self._secret_key = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        return crypto_sign(message, self._secret_key)[:64]

    def __repr__(self) -> str:
        return f"SeedSigner({self.public_key.hex()})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is never pickled")
