"""An invitation's code [format]: where a bundle lies in the local network, and which bundle that must be.

    4 bits version ‖ 32 bits IPv4 address ‖ 16 bits port ‖ 80 bits of the bundle's hash ‖ 8 bits check sum

140 bits in 28 digits of Crockford's base 32. The hash makes the code itself the proof: whoever got it from a friend
need not trust the network between them. It holds no secret: the bundle is public, and so is the code once it is known.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address

from dllm_protocol.base32 import grouped, read_base32, write_base32
from dllm_protocol.errors import UsageRefused, VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash

VERSION = 1
HASH_BITS = 80
HASH_DIGITS = 16
CODE_DIGITS = 28
BUNDLE_PATH = "/network.bundle"


class BadInvitation(UsageRefused):
    """An invitation's code that cannot be right."""

    code = "E_INVITATION_CODE"


class InvitationRefused(VerificationFailed):
    """The bundle that an invitation leads to is another one than it names."""

    code = "E_INVITATION"


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where to fetch a bundle, and how to recognise it."""

    address: IPv4Address
    port: int
    bundle_hash: bytes
    """First 10 bytes of the tagged hash of the signed bundle."""

    @property
    def url(self) -> str:
        """Where the bundle is served."""
        return f"http://{self.address}:{self.port}{BUNDLE_PATH}"


def bundle_hash_of(raw: bytes) -> bytes:
    """What an invitation says of a signed bundle: 80 bits, beyond anybody's reach to meet with another bundle."""
    return tagged_hash(Tag.INVITATION, raw)[: HASH_BITS // 8]


def hash_words(raw: bytes) -> str:
    """The same as people copy it: 16 digits in groups of four."""
    return grouped(write_base32(int.from_bytes(bundle_hash_of(raw)), HASH_DIGITS))


def write_code(invitation: Invitation) -> str:
    """The code that people tell each other."""
    body = (
        VERSION.to_bytes(1) + invitation.address.packed + invitation.port.to_bytes(2) + invitation.bundle_hash
    )
    value = int.from_bytes(body) << 8 | _check_sum(body)
    return grouped(write_base32(value, CODE_DIGITS))


def looks_like_code(text: str) -> bool:
    """Whether a text has the length and the digits of a code."""
    return read_base32(text, CODE_DIGITS) is not None


def read_code(text: str) -> Invitation:
    """The invitation behind a code.

    Raises:
        BadInvitation: mistyped, or of a version that is not known here.
    """
    value = read_base32(text, CODE_DIGITS)
    if value is None:
        raise BadInvitation(f"an invitation's code has {CODE_DIGITS} digits in groups of four")
    body = (value >> 8).to_bytes(17)
    if value & 0xFF != _check_sum(body):
        raise BadInvitation("the invitation's code has a typing error", hint="compare it digit by digit")
    if body[0] != VERSION:
        raise BadInvitation(f"the invitation has version {body[0]}, known is {VERSION}", hint="update dllm")
    return Invitation(IPv4Address(body[1:5]), int.from_bytes(body[5:7]), body[7:])


def read_hash(digits: str) -> bytes:
    """The 80 bits behind the ``#`` of an address. Raises BadInvitation."""
    value = read_base32(digits, HASH_DIGITS)
    if value is None:
        raise BadInvitation(
            f"behind the # stand {HASH_DIGITS} digits of the bundle's hash, not {digits[:40]!r}"
        )
    return value.to_bytes(HASH_BITS // 8)


def require_invited(raw: bytes, expected_hash: bytes, origin: str) -> None:
    """Refuse a bundle that is not the one that an invitation names. Raises InvitationRefused."""
    found = bundle_hash_of(raw)
    if found != expected_hash:
        raise InvitationRefused(
            f"the invitation names bundle {expected_hash.hex()}, {origin} gives {found.hex()}",
            hint="somebody else answers there, or the invitation is over: ask for a new one",
        )


def _check_sum(body: bytes) -> int:
    return hashlib.sha256(body).digest()[0]
