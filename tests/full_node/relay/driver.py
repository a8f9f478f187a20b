"""A relay's core at a clock of its own: what it does to each connection, kept."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field

from dllm_protocol.encoding import Record
from dllm_protocol.relay import (
    Answer,
    CloseReason,
    Dial,
    FromRelay,
    Incoming,
    ListenByName,
    ToRelay,
    Welcome,
    listen_by_key,
    name_address,
)
from dllm_protocol.signing import SeedSigner
from full_node.relay.core import Relay
from full_node.relay.effects import Close, Effect, Join, Send, Wait
from full_node.relay.limits import RelayLimits

NAME = b"a secret name of sixteen or more"
RELAY = "relay.example:443"


@dataclass
class Driver:
    """A relay, and what it has sent to whom."""

    limits: RelayLimits = field(default_factory=RelayLimits)
    now_ms: int = 1_000
    sent: dict[int, list[bytes | str]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[int, CloseReason] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._drawn = 0
        self.relay = Relay(self.limits, self._random)
        self.relay.names = frozenset({RELAY})

    def _random(self, length: int) -> bytes:
        self._drawn += 1
        return hashlib.sha512(self._drawn.to_bytes(8)).digest()[:length]

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, message):
                    assert peer not in self.closed, "nothing is sent to a closed connection"
                    self.sent[peer].append(message)
                case Join(peer):
                    self.joined.add(peer)
                case Close(peer, reason):
                    assert peer not in self.closed, "a connection is closed once"
                    self.closed[peer] = reason
                case Wait(peer, wait_ms):
                    assert peer not in self.closed and wait_ms > 0

    def open(self, remote: str = "192.0.2.7") -> int:
        peer, effects = self.relay.opened(remote, self.now_ms)
        self.do(effects)
        return peer

    def say(self, peer: int, message: Record | bytes | str) -> None:
        raw = ToRelay(message).encode() if isinstance(message, Record) else message
        self.do(self.relay.received(peer, raw, self.now_ms))

    def leave(self, peer: int, *, in_order: bool = True) -> None:
        self.do(self.relay.closed(peer, in_order=in_order))

    def tick(self, later_ms: int) -> None:
        self.now_ms += later_ms
        self.do(self.relay.tick(self.now_ms))

    def said(self, peer: int) -> Record:
        """The relay's last own message to a connection."""
        last = self.sent[peer][-1]
        assert isinstance(last, bytes)
        return FromRelay.decode(last).message

    # Longer ways

    def listener(self, name: bytes = NAME) -> int:
        peer = self.open("192.0.2.1")
        self.say(peer, ListenByName(name))
        return peer

    def keyed(self, signer: SeedSigner, *, relay: str = RELAY) -> int:
        peer = self.open("192.0.2.2")
        welcome = self.said(peer)
        assert isinstance(welcome, Welcome)
        self.say(peer, listen_by_key(signer, relay, welcome.nonce))
        return peer

    def dialer(self, name: bytes = NAME, remote: str = "192.0.2.7") -> int:
        peer = self.open(remote)
        self.say(peer, Dial(name_address(name)))
        return peer

    def ring(self, listener: int) -> bytes:
        incoming = self.said(listener)
        assert isinstance(incoming, Incoming)
        return incoming.ticket

    def stream(self) -> tuple[int, int, int]:
        """A listener, a dialer, and the connection that answers it."""
        listener = self.listener()
        dialer = self.dialer()
        answerer = self.open("192.0.2.1")
        self.say(answerer, Answer(self.ring(listener)))
        return listener, dialer, answerer
