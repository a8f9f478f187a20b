"""What parties say to a relay [format]: listen at an address, dial it, and be joined into a stream.

A relay forwards bytes between two parties that it does not know. A listener holds one websocket, on which the relay
rings; it answers each ring on a websocket of its own, so that streams never wait for each other and the network's own
flow control holds from end to end. See docs/protocol/relay.md.

An address is a hash: of an Ed25519 key whose holder signs the relay's challenge, or of a secret name that two parties
share. So nobody listens at an address who does not own it or was not told.
"""

from __future__ import annotations

import enum
from ipaddress import ip_address

from dllm_protocol.encoding import (
    HASH,
    PUBLIC_KEY,
    SIGNATURE,
    U64,
    ByteString,
    FormatVersion,
    OneOf,
    Record,
    Text,
    record,
    wire,
)
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged

RELAY_VERSION = 1
SUBPROTOCOL = f"dllm-relay.{RELAY_VERSION}"
"""The websocket subprotocol: both sides name the versions that they speak before anything else."""
MESSAGE_BYTES_MAX = 1 << 20
"""Longest message of a stream: one sealed frame."""
MESSAGE_COST_BYTES = 16
"""What a message counts beside its own bytes: empty ones cost, too."""
CONTROL_BYTES_MAX = 1024
"""Longest message before a stream."""
TICKET_BYTES = 16
NAME_BYTES_MIN, NAME_BYTES_MAX = 16, 64
RELAY_NAME_BYTES_MAX = 300
END = "end"
"""The one text message of a stream: whoever sends it sends no more bytes."""


class CloseReason(enum.IntEnum):
    """Websocket close codes of a relay; the numbers are part of the format."""

    ENDED = 1000
    GOING_AWAY = 1001
    PEER_ENDED = 4001
    PEER_LOST = 4002
    IDLE = 4003
    EXPIRED = 4004
    SPENT = 4005
    STALLED = 4006
    BROKEN = 4400
    NOT_PROVED = 4401
    DECLINED = 4403
    NOBODY = 4404
    LATE = 4408
    TAKEN = 4409
    REPLACED = 4410
    TOO_MANY = 4429
    FULL = 4503

    @property
    def words(self) -> str:
        """What it means, for people; sent beside the number."""
        return _WORDS[self]


_WORDS = {
    CloseReason.ENDED: "both sides have ended",
    CloseReason.GOING_AWAY: "the relay stops",
    CloseReason.PEER_ENDED: "the other side closed",
    CloseReason.PEER_LOST: "the connection to the other side was lost",
    CloseReason.IDLE: "nothing was sent for too long",
    CloseReason.EXPIRED: "the time allowed is over",
    CloseReason.SPENT: "the bytes allowed are spent",
    CloseReason.STALLED: "one side did not take what was sent",
    CloseReason.BROKEN: "that message is not allowed here",
    CloseReason.NOT_PROVED: "the signature does not prove the key at this relay",
    CloseReason.DECLINED: "the listener takes no more streams",
    CloseReason.NOBODY: "nobody listens at this address",
    CloseReason.LATE: "an answer did not come in time",
    CloseReason.TAKEN: "somebody listens at this address already",
    CloseReason.REPLACED: "the same key listens on a newer connection",
    CloseReason.TOO_MANY: "too many connections from your network address",
    CloseReason.FULL: "the relay has no room left",
}


@record
class Welcome(Record):
    """The relay's first message on every connection."""

    nonce: bytes = wire(1, HASH)
    """Random and used once: what a listener's key signs, together with the relay's name."""


@record
class ListenByKey(Record):
    """Listen at the address of a key; replaces an older connection of the same key."""

    key: bytes = wire(1, PUBLIC_KEY)
    """Whose address: `key_address`."""
    signature: bytes = wire(2, SIGNATURE)
    """The key's, under tag `relay-listen`, over the ListenClaim."""


@record
class ListenByName(Record):
    """Listen at the address of a secret name; refused while somebody listens there."""

    name: bytes = wire(1, ByteString(NAME_BYTES_MIN, NAME_BYTES_MAX))
    """What both sides share: `name_address` is the address."""


@record
class Dial(Record):
    """Ask for a stream to whoever listens at an address."""

    address: bytes = wire(1, HASH)
    """Hash of a key or of a name."""


@record
class Answer(Record):
    """On a new connection: take the stream that a ticket stands for."""

    ticket: bytes = wire(1, ByteString(TICKET_BYTES, TICKET_BYTES))
    """From Incoming."""


@record
class Decline(Record):
    """On a listener's connection: refuse the stream that a ticket stands for."""

    ticket: bytes = wire(1, ByteString(TICKET_BYTES, TICKET_BYTES))
    """From Incoming."""


@record
class Listening(Record):
    """To a listener: it is reachable from now on."""

    listen_ms: int = wire(1, U64)
    """How long it may listen; 0 = as long as its connection stands."""


@record
class Incoming(Record):
    """To a listener: somebody dialled."""

    ticket: bytes = wire(1, ByteString(TICKET_BYTES, TICKET_BYTES))
    """Random; for one Answer or Decline."""
    answer_ms: int = wire(2, U64)
    """How long the dialer waits for it."""


@record
class Opened(Record):
    """To both sides: from now on every message of one reaches the other."""

    idle_ms: int = wire(1, U64)
    """The stream is cut when neither side sends for this long."""
    stream_ms: int = wire(2, U64)
    """Its longest life."""
    stream_bytes: int = wire(3, U64)
    """Most bytes that it carries, both directions together; each message counts 16 more than it has."""


@record
class ToRelay(Record):
    """A message to a relay, outside of streams."""

    message: Record = wire(1, OneOf({1: ListenByKey, 2: ListenByName, 3: Dial, 4: Answer, 5: Decline}))
    """What is asked."""


@record
class FromRelay(Record):
    """A message of a relay, outside of streams."""

    message: Record = wire(1, OneOf({1: Welcome, 2: Listening, 3: Incoming, 4: Opened}))
    """What is said."""


@record
class ListenClaim(Record):
    """What a key signs to listen at its address; never sent, both sides compose it."""

    version: int = wire(1, FormatVersion(RELAY_VERSION))
    """1."""
    relay: str = wire(2, Text(RELAY_NAME_BYTES_MAX, minimum=1))
    """The relay's name as the signer dialled it: another relay cannot use the signature."""
    nonce: bytes = wire(3, HASH)
    """From Welcome."""


def key_address(public_key: bytes) -> bytes:
    """Where the holder of a key listens (32 bytes)."""
    return tagged_hash(Tag.RELAY_KEY, public_key)


def name_address(name: bytes) -> bytes:
    """Where whoever knows a name listens (32 bytes); it does not tell the name."""
    return tagged_hash(Tag.RELAY_NAME, name)


def listen_by_key(signer: Signer, relay: str, nonce: bytes) -> ListenByKey:
    """Prove to the relay of that name, on the connection of that nonce, that one holds a key."""
    claim = ListenClaim(RELAY_VERSION, relay, nonce).encode()
    return ListenByKey(signer.public_key, sign_tagged(signer, Tag.RELAY_LISTEN, claim))


def is_proved(listen: ListenByKey, relay: str, nonce: bytes) -> bool:
    """Whether the key signed for the relay of that name and this nonce."""
    claim = ListenClaim(RELAY_VERSION, relay, nonce).encode()
    return verify_tagged(listen.key, Tag.RELAY_LISTEN, claim, listen.signature)


def relay_name(host: str, port: int) -> str:
    """A relay's name, ``host:port``: lower case, without a final dot, IPv6 short and in brackets."""
    plain = host.strip("[]").rstrip(".").lower()
    try:
        address = ip_address(plain)
    except ValueError:
        return f"{plain}:{port}"
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
