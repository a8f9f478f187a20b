"""One websocket to a relay: its welcome, what is asked there, and the stream that it becomes."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused, DllmError, MalformedBytes
from dllm_protocol.relay import (
    CONTROL_BYTES_MAX,
    END,
    MESSAGE_BYTES_MAX,
    SUBPROTOCOL,
    Answer,
    CloseReason,
    Dial,
    FromRelay,
    Opened,
    ToRelay,
    Welcome,
)
from light_node.bounded_websocket import Dial as Connect
from light_node.bounded_websocket import DialedConnection
from light_node.channel.errors import ChannelLost, ChannelTimedOut
from light_node.channel.limits import QUEUED_FRAMES, WRITE_BUFFER_BYTES, ChannelLimits
from light_node.channel.link import Link
from light_node.relay.errors import (
    NobodyListens,
    RelayBroke,
    RelayRefused,
    RelayReplaced,
    RelayTimedOut,
    RelayUnreachable,
    StreamLost,
)
from light_node.relay.urls import RelayUrl

STREAM_LIMITS = ChannelLimits(write_ms=60_000)
"""A relay holds what the other side does not take, so that sending may wait longer than on a direct line."""
PING_WAIT_S = 60.0
"""A ping waits behind what was sent before it."""
DIAL_MS = 20_000
_REASON_CHARACTERS = 120
R = TypeVar("R", bound=Record)


class RelayStream(Link):
    """A stream to the other party; the relay between them forwards it.

    What the other side sends is a stranger's until it is proved, and nothing here hides it from the relay.
    """

    def __init__(self, socket: ClientConnection, opened: Opened, name: str, limits: ChannelLimits) -> None:
        super().__init__(socket, limits, name)
        self.opened = opened
        """How long and how much the relay forwards."""

    @property
    def is_local(self) -> bool:
        """Never: where the relay is says nothing of the party behind it."""
        return False

    @property
    def is_bare(self) -> bool:
        """Never: the connection is the relay's."""
        return False

    async def end(self) -> None:
        """Say that nothing more will be sent; receiving goes on.

        Raises:
            ChannelLost, ChannelTimedOut
        """
        await self._send(END)

    async def read(self, timeout_ms: int | None = None) -> bytes | None:
        """The next message; None where the other side said that there is none.

        Raises:
            StreamLost: the stream was cut before, with the relay's reason.
            RelayTimedOut: nothing came.
            RelayBroke: the relay sent what is no part of a stream.
        """
        limit_ms = self._limits.idle_ms if timeout_ms is None else timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                message = await self._socket.recv()
        except TimeoutError as error:
            raise RelayTimedOut(f"{self.name} said nothing for {limit_ms} ms") from error
        except ConnectionClosed as error:
            raise StreamLost(f"the stream through {self.name} ended: {_reason(error)}") from error
        if isinstance(message, bytes):
            return message
        if message != END:
            raise RelayBroke(f"{self.name} sent the text {message[:40]!r} in a stream")
        return None

    async def receive(self, timeout_ms: int | None = None) -> bytes:
        """As `Link.receive`; the other side's end is the connection's."""
        try:
            message = await self.read(timeout_ms)
        except StreamLost as error:
            raise ChannelLost(error.message) from error
        except RelayTimedOut as error:
            raise ChannelTimedOut(error.message) from error
        except RelayBroke as error:
            raise ChannelRefused(error.message) from error
        if message is None:
            raise ChannelLost(f"the other side ended the stream through {self.name}")
        return message

    async def wait_closed(self, timeout_ms: int) -> bool:
        """Whether the connection ended within the time."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._socket.wait_closed()
        except TimeoutError:
            return False
        return True


class RelayConnection:
    """A connection that the relay welcomed."""

    def __init__(self, socket: ClientConnection, url: RelayUrl, nonce: bytes) -> None:
        self.nonce = nonce
        """What a listener's key signs."""
        self._socket = socket
        self._url = url

    async def say(self, message: Record) -> None:
        """Send a request. Raises RelayUnreachable where the connection is lost."""
        try:
            await self._socket.send(ToRelay(message).encode())
        except ConnectionClosed as error:
            raise refusal_of(error, self._url) from error

    async def hear(self, wanted: type[R], timeout_s: float | None) -> R:
        """The relay's next message.

        Raises:
            RelayTimedOut: none came.
            RelayBroke: it is another one.
            NobodyListens, RelayRefused, RelayUnreachable: the relay closed instead.
        """
        try:
            async with asyncio.timeout(timeout_s):
                raw = await self._socket.recv()
        except TimeoutError as error:
            raise RelayTimedOut(f"the relay {self._url.name} did not answer in {timeout_s:g} s") from error
        except ConnectionClosed as error:
            raise refusal_of(error, self._url) from error
        try:
            message = FromRelay.decode(raw).message if isinstance(raw, bytes) else None
        except MalformedBytes as error:
            raise RelayBroke(
                f"the relay {self._url.name} sent bytes that are no message: {error.message}"
            ) from error
        if not isinstance(message, wanted):
            said = type(message).__name__ if message is not None else "text"
            raise RelayBroke(f"the relay {self._url.name} said {said} where {wanted.__name__} was due")
        return message

    async def become_stream(self, limit_s: float, limits: ChannelLimits, message_bytes: int) -> RelayStream:
        """Wait until the relay has joined this connection with the other party's."""
        # Whatever follows Opened is the other party's, and may be in the same packet.
        self._socket.protocol.max_message_size = max(message_bytes, CONTROL_BYTES_MAX)
        opened = await self.hear(Opened, limit_s)
        return RelayStream(self._socket, opened, f"the relay {self._url.name}", limits)

    async def close(self) -> None:
        """Close in order."""
        await self._socket.close()

    def abort(self) -> None:
        """Cut the connection now."""
        self._socket.transport.abort()


async def connect(url: RelayUrl, limit_s: float, limits: ChannelLimits = STREAM_LIMITS) -> RelayConnection:
    """Connect and be welcomed.

    Raises:
        RelayUnreachable, RelayRefused, RelayTimedOut, RelayBroke
    """
    deadline_s = asyncio.get_running_loop().time() + limit_s
    try:
        socket = await Connect(
            url.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # sealed bytes do not compress
            proxy=None,
            user_agent_header=None,
            open_timeout=limit_s,
            ping_interval=limits.ping_ms / 1000,
            ping_timeout=PING_WAIT_S,
            close_timeout=limits.close_ms / 1000,
            max_size=CONTROL_BYTES_MAX,
            max_queue=QUEUED_FRAMES,
            write_limit=WRITE_BUFFER_BYTES,
            create_connection=DialedConnection,
        )
    except TimeoutError as error:
        raise RelayTimedOut(f"the relay {url.name} did not answer in {limit_s:g} s") from error
    except (OSError, InvalidHandshake, InvalidURI, ValueError) as error:
        raise RelayUnreachable(
            f"cannot reach the relay {url.url}: {str(error)[:200] or type(error).__name__}",
            hint="is the address right, and does a relay run there?",
        ) from error
    connection = RelayConnection(socket, url, b"")
    try:
        if socket.subprotocol != SUBPROTOCOL:
            raise RelayBroke(f"{url.url} answers, but not as a relay: it does not speak {SUBPROTOCOL}")
        left_s = max(0.001, deadline_s - asyncio.get_running_loop().time())
        connection.nonce = (await connection.hear(Welcome, left_s)).nonce
    except (DllmError, asyncio.CancelledError):
        connection.abort()
        raise
    return connection


async def dial(
    url: RelayUrl, address: bytes, *, timeout_ms: int = DIAL_MS, limits: ChannelLimits = STREAM_LIMITS
) -> RelayStream:
    """A stream to whoever listens at an address.

    Raises:
        NobodyListens: nobody does.
        RelayUnreachable, RelayRefused, RelayTimedOut, RelayBroke
    """
    return await _open(url, Dial(address), timeout_ms, limits, MESSAGE_BYTES_MAX)


async def answer(
    url: RelayUrl,
    ticket: bytes,
    *,
    timeout_ms: int = DIAL_MS,
    limits: ChannelLimits = STREAM_LIMITS,
    message_bytes: int = MESSAGE_BYTES_MAX,
) -> RelayStream:
    """The stream that a ticket stands for.

    Args:
        message_bytes: longest message that is taken until `RelayStream.allow` says otherwise.

    Raises:
        NobodyListens: whoever dialled has gone.
        RelayUnreachable, RelayRefused, RelayTimedOut, RelayBroke
    """
    return await _open(url, Answer(ticket), timeout_ms, limits, message_bytes)


async def _open(
    url: RelayUrl, request: Record, timeout_ms: int, limits: ChannelLimits, message_bytes: int
) -> RelayStream:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_ms / 1000
    connection = await connect(url, timeout_ms / 1000, limits)
    try:
        await connection.say(request)
        return await connection.become_stream(max(0.001, deadline_s - loop.time()), limits, message_bytes)
    except (DllmError, asyncio.CancelledError):
        connection.abort()
        raise


def refusal_of(error: ConnectionClosed, url: RelayUrl) -> DllmError:
    """What a relay's close means."""
    code = error.rcvd.code if error.rcvd is not None else None
    if code == CloseReason.NOBODY:
        return NobodyListens(f"nobody listens at the relay {url.name} under this address")
    if code == CloseReason.REPLACED:
        return RelayReplaced(
            f"the relay {url.name} has closed this connection: {CloseReason.REPLACED.words}",
            hint="one program a key: stop the other one, or give each a key of its own",
        )
    if code in _REFUSALS:
        return RelayRefused(
            f"the relay {url.name} refuses: {_reason(error)}", hint=_REFUSALS[CloseReason(code)]
        )
    return RelayUnreachable(f"the connection to the relay {url.name} ended: {_reason(error)}")


def _reason(error: ConnectionClosed) -> str:
    """Our words for a number that we know; else the relay's, cut."""
    if error.rcvd is None:
        return "it was lost"
    try:
        return CloseReason(error.rcvd.code).words
    except ValueError:
        said = "".join(one for one in error.rcvd.reason if one.isascii() and one.isprintable())
        return f"code {error.rcvd.code} {said[:_REASON_CHARACTERS]}".rstrip()


_REFUSALS = {
    CloseReason.BROKEN: "the relay may be of another version: update dllm",
    CloseReason.NOT_PROVED: "the relay does not go by the name in your address: use the one that it was given",
    CloseReason.DECLINED: "try again in a minute",
    CloseReason.LATE: "the other side did not answer: try again",
    CloseReason.TAKEN: "somebody uses this very code already, or your earlier connection is not forgotten yet",
    CloseReason.TOO_MANY: "wait a minute",
    CloseReason.FULL: "try again later, or use another relay",
}
