"""Accounts and providers as people see them: bech32 (BIP-173) around 20 bytes.

An account's address is SHA-256(public key)[:20], as CometBFT does for validators. The prefix comes from
genesis ("dllm" on networks, "local" on an embedded one), so an address of one chain kind is refused by another.
"""

from __future__ import annotations

from dllm_protocol.errors import UsageRefused
from dllm_protocol.hashing import Tag, sha256, tagged_hash

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
MAX_CHARACTERS = 90
"""BIP-173's bound, within which the checksum keeps its promise."""
PROVIDER_SUFFIX = "prov"


class BadAddress(UsageRefused):
    """Text that is not an address of the chain in use."""

    code = "E_ADDRESS"


def address_of(public_key: bytes) -> bytes:
    """Address of an Ed25519 public key (20 bytes)."""
    return sha256(public_key)[:20]


def provider_id_of(owner: bytes, operator: bytes) -> bytes:
    """Id of the provider that ``owner`` registers for the operator address ``operator`` (20 bytes)."""
    return tagged_hash(Tag.PROVIDER, owner, operator)[:20]


def encode_address(prefix: str, address: bytes) -> str:
    """Bech32 text of a 20-byte address."""
    if len(address) != 20:
        raise BadAddress(f"an address has 20 bytes, not {len(address)}")
    words = _regroup(address, 8, 5, pad=True)
    checksum = _polymod(_expand(prefix) + words + [0] * 6) ^ 1
    words += [(checksum >> 5 * (5 - index)) & 31 for index in range(6)]
    return prefix + "1" + "".join(_CHARSET[word] for word in words)


def decode_address(text: str, expected_prefix: str) -> bytes:
    """The 20 bytes of a bech32 address.

    Raises:
        BadAddress: wrong prefix, length, character, mixed case or checksum, each named.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadAddress(
            f"an address has at most {MAX_CHARACTERS} characters, not {len(text)}",
            hint="copy it again, whole",
        )
    if not text.isascii():
        # Some letters beyond ASCII become ASCII ones in lower case: no look-alike is an address.
        raise BadAddress(
            f"{text[:80]!r} has a letter that never stands in an address", hint="copy it again, whole"
        )
    if text != text.lower() and text != text.upper():
        raise BadAddress("an address is written in lower case, not mixed", hint="copy it whole")
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or not prefix:
        raise BadAddress(
            f"{text[:80]!r} is not an address: it has no prefix", hint=f"it starts with {expected_prefix}1"
        )
    if prefix != expected_prefix:
        raise BadAddress(
            f"the address is for {prefix!r}, this chain uses {expected_prefix!r}",
            hint="check that it belongs to the network you are on",
        )
    words = [_CHARSET.find(character) for character in data]
    if -1 in words:
        raise BadAddress(f"character {data[words.index(-1)]!r} never stands in an address")
    if _polymod(_expand(prefix) + words) != 1:
        raise BadAddress("the address has a typo: its checksum does not fit", hint="copy it again, whole")
    payload = bytes(_regroup(bytes(words[:-6]), 5, 8, pad=False))
    if len(payload) != 20:
        raise BadAddress(f"an address holds 20 bytes, this one {len(payload)}")
    return payload


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(words: list[int]) -> int:
    """BIP-173: the checksum's polynomial over GF(32)."""
    check = 1
    for word in words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for index, generator in enumerate(_GENERATOR):
            if top >> index & 1:
                check ^= generator
    return check


def _regroup(data: bytes, from_bits: int, to_bits: int, *, pad: bool) -> list[int]:
    """Regroup bits; without padding, left-over bits must be fewer than a group and zero (BIP-173)."""
    accumulator = bits = 0
    out: list[int] = []
    for value in data:
        accumulator = accumulator << from_bits | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            out.append(accumulator >> bits & ((1 << to_bits) - 1))
        accumulator &= (1 << bits) - 1
    if pad and bits:
        out.append(accumulator << (to_bits - bits))
    elif not pad and (bits >= from_bits or accumulator):
        raise BadAddress("the address has stray bits at its end")
    return out
