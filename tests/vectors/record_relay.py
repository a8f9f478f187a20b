"""Record `relay.json`: what is said to and by a relay, and an invitation that goes through it. Run only when the format
changes.

python -m tests.vectors.record_relay
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dllm_protocol.encoding import Record
from dllm_protocol.endpoints import RelayEndpoint, write_relay_endpoint
from dllm_protocol.invitation import bundle_hash_of
from dllm_protocol.relay import (
    RELAY_VERSION,
    SUBPROTOCOL,
    Answer,
    CloseReason,
    Decline,
    Dial,
    FromRelay,
    Incoming,
    ListenByName,
    ListenClaim,
    Listening,
    Opened,
    ToRelay,
    Welcome,
    key_address,
    listen_by_key,
    name_address,
    relay_name,
)
from dllm_protocol.relay_invitation import RelayInvitation, relay_hint_of, sealed_parts, write_relay_code
from dllm_protocol.signing import SeedSigner

VECTORS = Path(__file__).with_name("relay.json")
KEY = SeedSigner(b"\x09" * 32)
NONCE, NAME, TICKET = bytes(range(32)), b"\x0a" * 32, b"\x0b" * 16
RELAY = relay_name("Relay.Example.", 443)
ADDRESS = key_address(KEY.public_key)
ENDPOINTS = (
    RelayEndpoint("wss://relay.example:443", RELAY, ADDRESS),
    RelayEndpoint("wss://relay.example:443/a/relay", RELAY, ADDRESS),
    RelayEndpoint("ws://192.168.1.20:9700", "192.168.1.20:9700", ADDRESS),
    RelayEndpoint("ws://[2001:db8::7]:9700", "[2001:db8::7]:9700", ADDRESS),
)
BUNDLE = bytes(range(256)) * 300
INVITATION = RelayInvitation(bundle_hash_of(BUNDLE), relay_hint_of(RELAY))
TO_RELAY: tuple[Record, ...] = (
    listen_by_key(KEY, RELAY, NONCE),
    ListenByName(NAME),
    Dial(key_address(KEY.public_key)),
    Answer(TICKET),
    Decline(TICKET),
)
FROM_RELAY: tuple[Record, ...] = (
    Welcome(NONCE),
    Listening(0),
    Listening(10_800_000),
    Incoming(TICKET, 15_000),
    Opened(600_000, 21_600_000, 1 << 30),
)


def record() -> dict[str, Any]:
    """Every message and identity."""
    return {
        "description": "The key's seed is 32 times the byte 9. The bundle is the bytes 0 to 255, 300 times. "
        "Bytes are hex.",
        "subprotocol": SUBPROTOCOL,
        "relay": RELAY,
        "key address": key_address(KEY.public_key).hex(),
        "name address": name_address(NAME).hex(),
        "listen claim": ListenClaim(RELAY_VERSION, RELAY, NONCE).encode().hex(),
        "to relay": [_spelt(one, ToRelay(one)) for one in TO_RELAY],
        "from relay": [_spelt(one, FromRelay(one)) for one in FROM_RELAY],
        "endpoints": [
            {"relay": one.url, "endpoint": write_relay_endpoint(one.url, one.relay, one.address)}
            for one in ENDPOINTS
        ],
        "close codes": {str(int(one)): one.name for one in CloseReason},
        "invitation": {
            "code": write_relay_code(INVITATION),
            "bundle hash": INVITATION.bundle_hash.hex(),
            "meeting name": INVITATION.meeting.hex(),
            "address": name_address(INVITATION.meeting).hex(),
            "first part": next(sealed_parts(BUNDLE[:100], INVITATION)).hex(),
        },
    }


def _spelt(message: Record, whole: Record) -> dict[str, str]:
    return {"type": type(message).__name__, "bytes": whole.encode().hex()}


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(record(), indent=1) + "\n", "utf-8")
