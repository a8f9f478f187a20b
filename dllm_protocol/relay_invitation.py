"""An invitation's code for people who meet at a relay [format], and a bundle's form on its way through it.

    4 bits version ‖ 80 bits of the bundle's hash ‖ 8 bits of the relay's name ‖ 8 bits check sum

100 bits in 20 digits of Crockford's base 32; a code for the local network has 28. The relay's address is not in the
code, because nobody reads an address aloud: it is typed once, or stands in the configuration. Its 8 bits only tell
people who use two relays that they do.

From the 80 bits follow where the two meet and the key that seals the bundle between them. So a relay neither reads
which network people join, nor can it give them another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from dllm_protocol.base32 import grouped, read_base32, write_base32
from dllm_protocol.hashing import Tag, sha256, tagged_hash
from dllm_protocol.invitation import HASH_BITS, BadInvitation, InvitationRefused, require_invited
from dllm_protocol.sealing import SealBroken, SealedStream

RELAY_CODE_VERSION = 2
RELAY_CODE_DIGITS = 20
PART_BYTES = 64 * 1024
"""Most bytes of a bundle in one message."""
SEALED_PART_BYTES_MAX = PART_BYTES + 128
"""A part with its padding and seal."""


@dataclass(frozen=True, slots=True)
class RelayInvitation:
    """Which bundle, and a hint at which relay it is to be had."""

    bundle_hash: bytes
    """First 10 bytes of the tagged hash of the signed bundle."""
    relay_hint: int
    """First byte of SHA-256 over the relay's name."""

    @property
    def meeting(self) -> bytes:
        """The secret name under which the two sides meet at the relay (32 bytes)."""
        return tagged_hash(Tag.INVITATION_MEETING, self.bundle_hash)


def relay_hint_of(relay: str) -> int:
    """What a code says of a relay's name."""
    return sha256(relay.encode())[0]


def write_relay_code(invitation: RelayInvitation) -> str:
    """The code that people tell each other."""
    body = RELAY_CODE_VERSION.to_bytes(1) + invitation.bundle_hash + invitation.relay_hint.to_bytes(1)
    value = int.from_bytes(body) << 8 | _check_sum(body)
    return grouped(write_base32(value, RELAY_CODE_DIGITS))


def looks_like_relay_code(text: str) -> bool:
    """Whether a text has the length and the digits of such a code."""
    return read_base32(text, RELAY_CODE_DIGITS) is not None


def read_relay_code(text: str) -> RelayInvitation:
    """The invitation behind a code.

    Raises:
        BadInvitation: mistyped, or of a version that is not known here.
    """
    value = read_base32(text, RELAY_CODE_DIGITS)
    if value is None:
        raise BadInvitation(f"a relay invitation's code has {RELAY_CODE_DIGITS} digits in groups of four")
    body = (value >> 8).to_bytes(2 + HASH_BITS // 8)
    if value & 0xFF != _check_sum(body):
        raise BadInvitation("the invitation's code has a typing error", hint="compare it digit by digit")
    if body[0] != RELAY_CODE_VERSION:
        raise BadInvitation(
            f"the invitation has version {body[0]}, known is {RELAY_CODE_VERSION}", hint="update dllm"
        )
    return RelayInvitation(body[1:-1], body[-1])


def sealed_parts(raw: bytes, invitation: RelayInvitation) -> Iterator[bytes]:
    """A bundle as the messages that go through the relay.

    The key follows from the bundle's own hash, so one key seals one bundle only and its counter nonces never meet
    another text.
    """
    stream = _stream(invitation)
    for at in range(0, len(raw), PART_BYTES):
        yield stream.seal(raw[at : at + PART_BYTES])


class BundleReader:
    """Takes a bundle's messages one by one; what was not sealed by the inviter is refused at once."""

    def __init__(self, invitation: RelayInvitation, origin: str, bytes_max: int) -> None:
        """Prepare.

        Args:
            origin: where the messages come from, for errors.
            bytes_max: most bytes that a bundle may have.
        """
        self._invitation = invitation
        self._stream = _stream(invitation)
        self._origin = origin
        self._bytes_max = bytes_max
        self._raw = bytearray()
        self._parts = 0

    @property
    def received_bytes(self) -> int:
        """How much of the bundle has come."""
        return len(self._raw)

    def take(self, message: bytes) -> None:
        """The next message.

        Raises:
            InvitationRefused: it is not the next part of the bundle that the code names, or there is too much.
        """
        if len(message) > SEALED_PART_BYTES_MAX:
            raise InvitationRefused(
                f"{self._origin} gives a part of {len(message)} bytes, at most {SEALED_PART_BYTES_MAX} are allowed",
                hint=_ASK_ANEW,
            )
        try:
            part = self._stream.open(message)
        except SealBroken as error:
            raise InvitationRefused(
                f"part {self._parts} that {self._origin} gives is not sealed by whoever made the code",
                hint=_ASK_ANEW,
            ) from error
        if not part:
            raise InvitationRefused(f"part {self._parts} that {self._origin} gives is empty", hint=_ASK_ANEW)
        self._parts += 1
        self._raw += part
        if len(self._raw) > self._bytes_max:
            raise InvitationRefused(
                f"{self._origin} gives more than {self._bytes_max} bytes: it is no bundle", hint=_ASK_ANEW
            )

    def finish(self) -> bytes:
        """The whole bundle. Raises InvitationRefused where it is another one than the code names, or cut short."""
        raw = bytes(self._raw)
        require_invited(raw, self._invitation.bundle_hash, self._origin)
        return raw


_ASK_ANEW = "the relay, or somebody who knows the code, interferes: ask for a new code, or use another relay"


def _stream(invitation: RelayInvitation) -> SealedStream:
    key = tagged_hash(Tag.INVITATION_KEY, invitation.bundle_hash)
    return SealedStream(key, key)


def _check_sum(body: bytes) -> int:
    return hashlib.sha256(body).digest()[0]
