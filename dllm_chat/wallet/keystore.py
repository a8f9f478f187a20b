"""The keystore [format]: a wallet's secret under a password, in a file that says how to open it.

Argon2id turns the password into a key; XChaCha20-Poly1305 seals the secret and binds the header, which is the
canonical spelling of everything in the file but ciphertext and checksum. See docs/protocol/keys.md.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_pwhash_alg,
    crypto_pwhash_ALG_ARGON2ID13,
)
from nacl.exceptions import CryptoError

from dllm_chat.wallet.errors import FileDamaged, WrongPassword
from dllm_chat.wallet.json_file import hex_field, int_field, read_json, spell, write_json
from dllm_chat.wallet.mnemonic import ENTROPY_BYTES, MAX_PASSPHRASE_BYTES, check_passphrase
from dllm_protocol.hashing import sha256

FORMAT = "dllm-keystore"
VERSION = 1
SALT_BYTES = 16
NONCE_BYTES = 24
MAX_OPSLIMIT = 32
MAX_MEMLIMIT_BYTES = 1 << 30
MAX_PASSWORD_BYTES = 1024
_PLAIN_BYTES = 1 + 32 + 2 + MAX_PASSPHRASE_BYTES


@dataclass(frozen=True, slots=True)
class KdfCost:
    """What one guess at the password costs. The default is libsodium's MODERATE."""

    opslimit: int = 3
    memlimit_bytes: int = 256 << 20


DEFAULT_COST = KdfCost()


@dataclass(frozen=True, slots=True)
class WalletSecret:
    """What a wallet grows from."""

    entropy: bytes = field(repr=False)
    """16 or 32 bytes: 12 or 24 words."""
    passphrase: str = field(default="", repr=False)
    """BIP-39's, which changes every key; not the password."""


@dataclass(frozen=True, slots=True)
class OpenedKeystore:
    """A keystore that its password opened."""

    secret: WalletSecret
    public_key: bytes
    version: int


def fingerprint_of(public_key: bytes) -> bytes:
    """4 bytes by which a person recognises a wallet, from the key of its account 0."""
    return sha256(b"DLLM wallet fingerprint\x00" + public_key)[:4]


def seal_keystore(
    path: Path,
    secret: WalletSecret,
    password: str,
    public_key: bytes,
    *,
    cost: KdfCost = DEFAULT_COST,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Write a keystore of the newest version.

    Args:
        public_key: of account 0; shown while locked, and compared after unlocking.
        cost: Argon2id parameters, kept in the file.
    """
    salt = random_bytes(SALT_BYTES)
    nonce = random_bytes(NONCE_BYTES)
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint_of(public_key).hex(),
        "public_key": public_key.hex(),
        "kdf": {
            "name": "argon2id",
            "salt": salt.hex(),
            "opslimit": cost.opslimit,
            "memlimit_bytes": cost.memlimit_bytes,
        },
        "cipher": {"name": "xchacha20poly1305", "nonce": nonce.hex()},
    }
    key = _stretch(password, salt, cost)
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(_pack(secret), spell(header), nonce, key)
    write_json(path, {**header, "ciphertext": sealed.hex()})


def read_public(path: Path) -> tuple[bytes, bytes]:
    """(public key of account 0, fingerprint) of a locked keystore: authentic only once it was unlocked."""
    content = read_json(path, FORMAT, VERSION)
    public_key = hex_field(content, "public_key", 32)
    fingerprint = hex_field(content, "fingerprint", 4)
    if fingerprint != fingerprint_of(public_key):
        raise FileDamaged(
            f"{path} says fingerprint {fingerprint.hex()}, its key has {fingerprint_of(public_key).hex()}"
        )
    return public_key, fingerprint


def open_keystore(path: Path, password: str) -> OpenedKeystore:
    """Open a keystore of any version we know. Takes what its parameters say (about 0.3 s).

    Raises:
        WrongPassword: the file is whole and the password does not open it.
        FileDamaged: bytes were changed.
        UnknownVersion: a newer program wrote it.
        FileNotFoundError: no such file.
    """
    content = read_json(path, FORMAT, VERSION)
    version = int(content["version"])
    opener = OPENERS.get(version)
    if opener is None:
        raise FileDamaged(f"{path} has version {version}, which never existed")
    return opener(content, password)


def _open_v1(content: dict[str, Any], password: str) -> OpenedKeystore:
    header = {name: value for name, value in content.items() if name != "ciphertext"}
    kdf, cipher = content.get("kdf"), content.get("cipher")
    if not isinstance(kdf, dict) or kdf.get("name") != "argon2id":
        raise FileDamaged("the keystore names no key derivation that we know (argon2id)")
    if not isinstance(cipher, dict) or cipher.get("name") != "xchacha20poly1305":
        raise FileDamaged("the keystore names no cipher that we know (xchacha20poly1305)")
    cost = KdfCost(
        int_field(kdf, "opslimit", 1, MAX_OPSLIMIT),
        int_field(kdf, "memlimit_bytes", 8192, MAX_MEMLIMIT_BYTES),
    )
    nonce = hex_field(cipher, "nonce", NONCE_BYTES)
    key = _stretch(password, hex_field(kdf, "salt", SALT_BYTES), cost)
    try:
        plain = crypto_aead_xchacha20poly1305_ietf_decrypt(
            hex_field(content, "ciphertext"), spell(header), nonce, key
        )
    except CryptoError as error:
        raise WrongPassword(
            "the password does not open this wallet", hint="the password is not the BIP-39 passphrase"
        ) from error
    return OpenedKeystore(_unpack(plain), hex_field(content, "public_key", 32), 1)


OPENERS: Mapping[int, Callable[[dict[str, Any], str], OpenedKeystore]] = {1: _open_v1}
"""How to open each version there ever was; the manager seals an older one anew when it was opened."""


def _stretch(password: str, salt: bytes, cost: KdfCost) -> bytes:
    """32-byte key of a password; NFKC, so that the same letters typed on two systems are the same bytes."""
    raw = unicodedata.normalize("NFKC", password).encode()
    if len(raw) > MAX_PASSWORD_BYTES:
        raise WrongPassword(f"the password has {len(raw)} bytes, at most {MAX_PASSWORD_BYTES} are allowed")
    return crypto_pwhash_alg(32, raw, salt, cost.opslimit, cost.memlimit_bytes, crypto_pwhash_ALG_ARGON2ID13)


def _pack(secret: WalletSecret) -> bytes:
    """One length for every secret, so that the file does not tell 12 words from 24, nor a passphrase."""
    check_passphrase(secret.passphrase)
    if len(secret.entropy) not in ENTROPY_BYTES.values():
        raise ValueError(f"entropy has {len(secret.entropy)} bytes")
    passphrase = secret.passphrase.encode()
    return (
        bytes([len(secret.entropy)])
        + secret.entropy.ljust(32, b"\x00")
        + len(passphrase).to_bytes(2, "big")
        + passphrase.ljust(MAX_PASSPHRASE_BYTES, b"\x00")
    )


def _unpack(plain: bytes) -> WalletSecret:
    if len(plain) != _PLAIN_BYTES or plain[0] not in ENTROPY_BYTES.values():
        raise FileDamaged("the keystore holds no secret of a shape that we know")
    size = int.from_bytes(plain[33:35], "big")
    try:
        passphrase = plain[35 : 35 + size].decode()
    except UnicodeDecodeError:
        # Not chained: the error carries the bytes, which are the secret.
        raise FileDamaged("the keystore's passphrase is not UTF-8") from None
    return WalletSecret(plain[1 : 1 + plain[0]], passphrase)
