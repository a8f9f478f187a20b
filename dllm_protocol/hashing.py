"""Every domain tag, once. A hash or signature made for one purpose is never valid for another.

``tagged_hash(tag, data) = SHA-256("DLLM/v1/" ‖ tag ‖ 0x00 ‖ data)``. Tags are ASCII without a zero byte, so the
prefix is unambiguous. Hashes that CometBFT defines (headers, commits, part sets, transactions) are not tagged.
"""

from __future__ import annotations

import enum
import hashlib


class Tag(enum.Enum):
    """What a hash or a signature is for."""

    TRANSACTION = b"transaction"  # signature over a transaction body
    VOUCHER = b"voucher"  # signature of a session key over a voucher
    WINDOW_ACK = b"window-ack"  # signature of a service key over an acknowledgement
    FIRST_MESSAGE = b"first-message"  # nonce of a channel's first, sealed message
    CHANNEL_OFFER = b"channel-offer"  # signature of a service key over its ephemeral key
    CHANNEL_CLAIM = b"channel-claim"  # signature of a session key over the handshake
    STAGE_CLAIM = b"stage-claim"  # signature of a service key over the handshake with the next stage
    CONSENSUS_KEY = b"consensus-key"  # signature of a consensus key over whose stake it signs for
    BUNDLE = b"network-bundle"  # signature over a network's description
    INVITATION = b"network-invitation"  # what an invitation's code says of the bundle that it leads to
    INVITATION_MEETING = b"invitation-meeting"  # name under which an invitation's two sides meet at a relay
    INVITATION_KEY = b"invitation-key"  # key that seals a bundle on its way through a relay
    RELAY_KEY = b"relay-key"  # address at a relay of whoever holds a key
    RELAY_NAME = b"relay-name"  # address at a relay of whoever knows a secret name
    RELAY_LISTEN = (
        b"relay-listen"  # signature of a key over a relay's challenge, to listen at its address there
    )
    GENESIS = b"genesis"  # hash that a chain id ends in
    MANIFEST = b"model-manifest"  # identity of a model
    PROBE_TOKEN = b"probe-token"  # the tokens that a model's probe is made of
    PROBE_QUESTION = b"probe-question"  # rows of a client's own probe of a standby, out of its secret
    PROBE_TURN = b"probe-turn"  # whether a client probes in a window, and whom
    VOCABULARY = b"vocabulary"  # identity of a tokenizer's pieces
    OFFER_BOOK = b"offer-book"  # hash of a frozen book's canonical list
    HOLDER_BOOK = b"holder-book"  # hash of the canonical list of holders that is frozen with it
    PROVIDER = b"provider"  # provider id from owner and operator
    SESSION = b"session"  # session id from account and session key
    ROUTE = b"route"  # hash of a route record
    ROUTE_SEED = b"route-seed"  # tie-break seed of an assignment
    ROUTE_TIE = b"route-tie"  # order among equal offers
    PLACEMENT_SEED = b"placement-seed"  # what placement in one epoch takes its orders from
    PLACEMENT_TURN = b"placement-turn"  # in which order providers take their turn in an epoch
    PLACEMENT_TIE = b"placement-tie"  # order among slices that are as good
    TRANSCRIPT = b"transcript"  # chain over the rows of a session
    OUTPUTS = b"outputs"  # chain over the logits that a leg delivered
    HELD_ROWS = b"held-rows"  # which rows a provider still has in its KV cache
    RECEIPT = b"receipt"  # signature of a session key over a receipt
    TEXT = b"text"  # hash of a prompt or reply in a receipt
    STATE_SNAPSHOT = b"state-snapshot"  # identity of a snapshot: hash of its manifest
    SNAPSHOT_CHUNK = b"snapshot-chunk"  # hash of a chunk's content


def domain(tag: Tag) -> bytes:
    """Prefix that separates one purpose from all others."""
    return _DOMAINS[tag]


_DOMAINS = {tag: b"DLLM/v1/" + tag.value + b"\x00" for tag in Tag}


def tagged_hash(tag: Tag, *parts: bytes) -> bytes:
    """SHA-256 of the parts, joined, under a domain tag (32 bytes).

    Parts are joined without separators: give fixed-length parts, or one canonical encoding.
    """
    digest = hashlib.sha256(domain(tag))
    for part in parts:
        digest.update(part)
    return digest.digest()


def sha256(data: bytes) -> bytes:
    """Plain SHA-256 (32 bytes), where CometBFT or BIP formats ask for it."""
    return hashlib.sha256(data).digest()
