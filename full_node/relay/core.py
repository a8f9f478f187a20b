"""A relay without sockets and clock: connections, their messages and the time go in, what is to be done comes out.

A connection is *new* until its first message, then *listening*, *waiting* (it dialled) or *joined* with another one.
Whatever is not allowed in a state ends the connection. docs/protocol/relay.md has the table.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dllm_protocol.encoding import Record
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.relay import (
    CONTROL_BYTES_MAX,
    END,
    MESSAGE_COST_BYTES,
    TICKET_BYTES,
    Answer,
    CloseReason,
    Decline,
    Dial,
    FromRelay,
    Incoming,
    ListenByKey,
    ListenByName,
    Listening,
    Opened,
    ToRelay,
    Welcome,
    is_proved,
    key_address,
    name_address,
)
from full_node.relay.allowance import Allowance
from full_node.relay.effects import Close, Effect, Join, Send, Wait
from full_node.relay.limits import RelayLimits
from full_node.relay.pacing import Bucket, Pacing


class State(enum.Enum):
    """What a connection is."""

    NEW = "new"
    LISTENING = "listening"
    WAITING = "waiting"
    JOINED = "joined"


@dataclass(slots=True)
class _Stream:
    opened_ms: int
    heard_ms: int
    bytes_left: int
    bucket: Bucket


@dataclass(slots=True)
class _Peer:
    id: int
    remote: str
    since_ms: int
    nonce: bytes
    state: State = State.NEW
    address: bytes = b""
    by_key: bool = False
    ticket: bytes = b""
    listener: int = 0
    dialers: set[int] = field(default_factory=set)
    is_counted: bool = True
    """Whether it counts among its remote's connections; those that answer count among their listener's."""
    other: int = 0
    stream: _Stream | None = None
    has_ended: bool = False


@dataclass
class RelayCounts:
    """What is counted while a relay runs."""

    streams: int = 0
    forwarded_messages: int = 0
    forwarded_bytes: int = 0
    waits: int = 0
    """Times that a sender was not read for a while, because it had sent faster than it may."""
    closed: Counter[CloseReason] = field(default_factory=Counter)


class Relay:
    """Who listens, who dials, who is joined with whom."""

    def __init__(self, limits: RelayLimits, random_bytes: Callable[[int], bytes]) -> None:
        """An empty relay.

        Args:
            random_bytes: nonces and tickets; must be unpredictable.
        """
        self.names: frozenset[str] = frozenset()
        """What the relay goes by, as `dllm_protocol.relay.relay_name` writes it; keys sign one of them."""
        self._limits = limits
        self._random_bytes = random_bytes
        self._allowance = Allowance(limits.opens_per_minute)
        self._pacing = Pacing(limits.stream_bytes_per_s, limits.remote_bytes_per_s)
        self._peers: dict[int, _Peer] = {}
        self._by_remote: Counter[str] = Counter()
        self._listeners: dict[bytes, int] = {}
        self._tickets: dict[bytes, int] = {}
        self._dialers = 0
        self._last = 0
        self.counts = RelayCounts()

    # What is going on

    def state_of(self, peer: int) -> State | None:
        """What a connection is; None once it was closed."""
        found = self._peers.get(peer)
        return found.state if found is not None else None

    @property
    def listeners(self) -> dict[str, int]:
        """How many listen, by what they proved: ``key`` or ``name``."""
        by_key = sum(self._peers[one].by_key for one in self._listeners.values())
        return {"key": by_key, "name": len(self._listeners) - by_key}

    @property
    def connections(self) -> int:
        """Connections that stand."""
        return len(self._peers)

    @property
    def streams(self) -> int:
        """Streams that stand."""
        return sum(one.state is State.JOINED for one in self._peers.values()) // 2

    @property
    def is_empty(self) -> bool:
        """Whether it remembers nobody."""
        held = (self._peers, self._by_remote, self._listeners, self._tickets, self._allowance, self._pacing)
        return self._dialers == 0 and not any(len(one) for one in held)

    # What happens

    def opened(self, remote: str, now_ms: int) -> tuple[int, list[Effect]]:
        """A connection was opened; returns its number."""
        self._last += 1
        peer = _Peer(self._last, remote, now_ms, self._random_bytes(32))
        self._peers[peer.id] = peer
        self._by_remote[remote] += 1
        if len(self._peers) > self._limits.connections:
            return peer.id, [self._close(peer, CloseReason.FULL)]
        too_many = self._by_remote[remote] > self._limits.connections_per_remote
        if too_many or not self._allowance.take(remote, now_ms):
            return peer.id, [self._close(peer, CloseReason.TOO_MANY)]
        return peer.id, [_say(peer, Welcome(peer.nonce))]

    def received(self, peer: int, message: bytes | str, now_ms: int) -> list[Effect]:
        """A message came in."""
        found = self._peers.get(peer)
        if found is None:
            return []  # it was closed, and sent this before it knew
        if found.state is State.JOINED:
            return list(self._forward(found, message, now_ms))
        request = _read(message)
        if found.state is State.NEW:
            return list(self._begin(found, request, now_ms))
        if found.state is State.LISTENING and isinstance(request, Decline):
            return list(self._decline(found, request))
        return list(self._end(found, CloseReason.BROKEN))

    def closed(self, peer: int, *, in_order: bool) -> list[Effect]:
        """A connection ended.

        Args:
            in_order: it was closed by its holder with code 1000, not lost.
        """
        found = self._peers.get(peer)
        if found is None:
            return []
        reason = CloseReason.PEER_ENDED if in_order else CloseReason.PEER_LOST
        effects = list(self._leave(found, reason))
        self._forget(found)
        return effects

    def stalled(self, peer: int) -> list[Effect]:
        """A connection did not take what was sent to it in the time allowed."""
        found = self._peers.get(peer)
        return list(self._end(found, CloseReason.STALLED)) if found is not None else []

    def tick(self, now_ms: int) -> list[Effect]:
        """Time went by: what is over is closed."""
        self._allowance.forget(now_ms)
        self._pacing.forget(now_ms)
        effects: list[Effect] = []
        for peer in list(self._peers.values()):
            if peer.id in self._peers and (reason := self._overdue(peer, now_ms)) is not None:
                effects += self._end(peer, reason)
        return effects

    def stop(self) -> list[Effect]:
        """Close everything."""
        return [self._close(peer, CloseReason.GOING_AWAY) for peer in list(self._peers.values())]

    # First messages

    def _begin(self, peer: _Peer, request: Record | None, now_ms: int) -> Iterator[Effect]:
        match request:
            case ListenByKey():
                proved = any(is_proved(request, name, peer.nonce) for name in self.names)
                if not proved:
                    yield from self._end(peer, CloseReason.NOT_PROVED)
                    return
                yield from self._listen(peer, key_address(request.key), now_ms, by_key=True)
            case ListenByName(name):
                yield from self._listen(peer, name_address(name), now_ms, by_key=False)
            case Dial(address):
                yield from self._dial(peer, address, now_ms)
            case Answer(ticket):
                yield from self._answer(peer, ticket, now_ms)
            case _:
                yield from self._end(peer, CloseReason.BROKEN)

    def _listen(self, peer: _Peer, address: bytes, now_ms: int, *, by_key: bool) -> Iterator[Effect]:
        older = self._listeners.get(address)
        if older is not None:
            if not by_key:
                yield from self._end(peer, CloseReason.TAKEN)
                return
            yield from self._end(self._peers[older], CloseReason.REPLACED)
        if len(self._listeners) >= self._limits.listeners:
            yield from self._end(peer, CloseReason.FULL)
            return
        peer.state, peer.since_ms, peer.address, peer.by_key = State.LISTENING, now_ms, address, by_key
        self._listeners[address] = peer.id
        yield _say(peer, Listening(0 if by_key else self._limits.name_listen_ms))

    def _dial(self, peer: _Peer, address: bytes, now_ms: int) -> Iterator[Effect]:
        listener = self._peers.get(self._listeners.get(address, 0))
        if listener is None:
            yield from self._end(peer, CloseReason.NOBODY)
            return
        if self._dialers >= self._limits.streams:
            yield from self._end(peer, CloseReason.FULL)
            return
        if len(listener.dialers) >= self._limits.streams_per_listener:
            yield from self._end(peer, CloseReason.DECLINED)
            return
        peer.state, peer.since_ms = State.WAITING, now_ms
        peer.listener, peer.ticket = listener.id, self._random_bytes(TICKET_BYTES)
        self._dialers += 1
        self._tickets[peer.ticket] = peer.id
        listener.dialers.add(peer.id)
        yield _say(listener, Incoming(peer.ticket, self._limits.answer_ms))

    def _answer(self, peer: _Peer, ticket: bytes, now_ms: int) -> Iterator[Effect]:
        dialer = self._peers.get(self._tickets.pop(ticket, 0))
        if dialer is None:
            yield from self._end(peer, CloseReason.NOBODY)
            return
        self._allowance.give_back(peer.remote, now_ms)
        self._count_no_more(peer)
        stream = _Stream(now_ms, now_ms, self._limits.stream_bytes, self._pacing.new_stream(now_ms))
        peer.other, dialer.other = dialer.id, peer.id
        self.counts.streams += 1
        opened = Opened(self._limits.idle_ms, self._limits.stream_ms, self._limits.stream_bytes)
        for side in (peer, dialer):
            side.state, side.stream = State.JOINED, stream
            yield Join(side.id)
        for side in (peer, dialer):
            yield _say(side, opened)

    def _decline(self, listener: _Peer, request: Decline) -> Iterator[Effect]:
        dialer = self._peers.get(self._tickets.get(request.ticket, 0))
        if dialer is not None and dialer.listener == listener.id:
            yield from self._end(dialer, CloseReason.DECLINED)

    # Streams

    def _forward(self, peer: _Peer, message: bytes | str, now_ms: int) -> Iterator[Effect]:
        stream, other = peer.stream, self._peers.get(peer.other)
        if stream is None or other is None or peer.has_ended or (isinstance(message, str) and message != END):
            yield from self._end(peer, CloseReason.BROKEN)
            return
        cost_bytes = len(message) + MESSAGE_COST_BYTES
        if cost_bytes > stream.bytes_left:
            yield from self._end(peer, CloseReason.SPENT)
            return
        stream.heard_ms = now_ms
        stream.bytes_left -= cost_bytes
        self.counts.forwarded_messages += 1
        self.counts.forwarded_bytes += len(message)
        yield Send(other.id, message)
        if isinstance(message, str):
            peer.has_ended = True
            if other.has_ended:
                yield from self._end(peer, CloseReason.ENDED)
                return
        wait_ms = self._pacing.take(stream.bucket, peer.remote, cost_bytes, now_ms)
        if wait_ms:
            self.counts.waits += 1
            yield Wait(peer.id, wait_ms)

    # Ends

    def _end(self, peer: _Peer, reason: CloseReason) -> Iterator[Effect]:
        """Close a connection, and let those who depend on it know."""
        yield from self._leave(peer, _TO_OTHER.get(reason, reason))
        if peer.id in self._peers:
            yield self._close(peer, reason)

    def _leave(self, peer: _Peer, to_other: CloseReason) -> Iterator[Effect]:
        """What a connection's end means for others."""
        if (other := self._peers.get(peer.other)) is not None:
            yield self._close(other, to_other)
        for waiting in [self._peers[one] for one in sorted(peer.dialers)]:
            if waiting.state is State.WAITING:
                yield self._close(waiting, CloseReason.NOBODY)

    def _close(self, peer: _Peer, reason: CloseReason) -> Close:
        self._forget(peer)
        self.counts.closed[reason] += 1
        return Close(peer.id, reason)

    def _forget(self, peer: _Peer) -> None:
        self._peers.pop(peer.id, None)
        self._count_no_more(peer)
        if self._listeners.get(peer.address) == peer.id:
            del self._listeners[peer.address]
        self._tickets.pop(peer.ticket, None)
        if peer.listener:
            self._dialers -= 1
            if (listener := self._peers.get(peer.listener)) is not None:
                listener.dialers.discard(peer.id)

    def _count_no_more(self, peer: _Peer) -> None:
        """Its remote may open another one instead."""
        if peer.is_counted:
            peer.is_counted = False
            self._by_remote[peer.remote] -= 1
            if not self._by_remote[peer.remote]:
                del self._by_remote[peer.remote]

    def _overdue(self, peer: _Peer, now_ms: int) -> CloseReason | None:
        age_ms = now_ms - peer.since_ms
        if peer.state is State.NEW and age_ms > self._limits.handshake_ms:
            return CloseReason.LATE
        if peer.state is State.WAITING and age_ms > self._limits.answer_ms:
            return CloseReason.LATE
        if peer.state is State.LISTENING and not peer.by_key and age_ms > self._limits.name_listen_ms:
            return CloseReason.EXPIRED
        if peer.stream is not None:
            if now_ms - peer.stream.opened_ms > self._limits.stream_ms:
                return CloseReason.EXPIRED
            if now_ms - peer.stream.heard_ms > self._limits.idle_ms:
                return CloseReason.IDLE
        return None


_TO_OTHER = {CloseReason.BROKEN: CloseReason.PEER_LOST}
"""What the other side of a stream is told where it is not the same."""


def _say(peer: _Peer, message: Record) -> Send:
    return Send(peer.id, FromRelay(message).encode())


def _read(message: bytes | str) -> Record | None:
    """A request; None where it is none."""
    if isinstance(message, str) or len(message) > CONTROL_BYTES_MAX:
        return None
    try:
        return ToRelay.decode(message).message
    except MalformedBytes:
        return None
