"""Hold an address at a relay: answer who dials, and come back when the connection is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dllm_protocol.errors import DllmError, NetworkUnreachable, NotFound, TimedOut
from dllm_protocol.relay import (
    MESSAGE_BYTES_MAX,
    Decline,
    Incoming,
    ListenByName,
    Listening,
    listen_by_key,
)
from dllm_protocol.signing import Signer
from light_node.channel.limits import ChannelLimits
from light_node.relay.connection import STREAM_LIMITS, RelayConnection, RelayStream, answer, connect
from light_node.relay.errors import RelayReplaced
from light_node.relay.urls import RelayUrl

CONNECT_S = 20.0
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 30.0
_log = logging.getLogger(__name__)

OnStream = Callable[[RelayStream], Awaitable[None]]
"""Serves one stream until it returns. A DllmError out of it closes this stream and nothing else."""


@dataclass(frozen=True, slots=True)
class ByKey:
    """Listen at a key's address."""

    signer: Signer


@dataclass(frozen=True, slots=True)
class ByName:
    """Listen at a secret name's address."""

    name: bytes

    def __repr__(self) -> str:
        return "ByName(…)"


class RelayListener:
    """Listens at one relay under one address, until it is closed.

    listener = RelayListener(url, ByKey(signer), serve, streams_max=16)
    await listener.start()       # raises where the relay does not take us
    await listener.run()         # until cancelled; a lost connection is made anew
    """

    def __init__(
        self,
        url: RelayUrl,
        who: ByKey | ByName,
        on_stream: OnStream,
        *,
        streams_max: int,
        on_news: Callable[[str], None] = _log.info,
        limits: ChannelLimits = STREAM_LIMITS,
        message_bytes: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """Prepare; nothing is connected before `start`.

        Args:
            streams_max: who dials beyond so many streams at once is declined.
            on_news: is told when the relay is lost, and when it is there again.
            limits: of every stream.
            message_bytes: longest message of a stream until its handler calls `RelayStream.allow`.
        """
        self._url = url
        self._who = who
        self._on_stream = on_stream
        self._streams_max = streams_max
        self._on_news = on_news
        self._limits = limits
        self._message_bytes = message_bytes
        self._connection: RelayConnection | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.is_listening = False
        """Whether the relay rings us now."""
        self.problem = ""
        """Why it does not; empty while it does."""

    @property
    def streams(self) -> int:
        """Streams that are served now, those included that are being answered."""
        return len(self._serving)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            RelayUnreachable, RelayRefused, RelayTimedOut, RelayBroke
        """
        connection = await connect(self._url, CONNECT_S)
        try:
            if isinstance(self._who, ByKey):
                await connection.say(listen_by_key(self._who.signer, self._url.name, connection.nonce))
            else:
                await connection.say(ListenByName(self._who.name))
            await connection.hear(Listening, CONNECT_S)
        except (DllmError, asyncio.CancelledError):
            connection.abort()
            raise
        self._connection = connection
        self.is_listening, self.problem = True, ""

    async def run(self) -> None:
        """Answer who dials, until cancelled; come back with growing pauses where the connection is lost.

        Raises:
            VerificationFailed: the relay breaks its protocol.
            RelayReplaced: another program listens with the same key.
        """
        pause_s, clock_s = RETRY_FIRST_S, asyncio.get_running_loop().time
        while True:
            began_s = clock_s()
            try:
                if self._connection is None:
                    await self.start()
                    self._on_news(f"listening at the relay {self._url.name}")
                await self._answer_rings()
            except RelayReplaced as error:
                self._drop(error)
                raise
            except (NetworkUnreachable, NotFound, TimedOut) as error:
                if error.message != self.problem:
                    self._on_news(f"{error.message}; trying again")
                self._drop(error)
                if clock_s() - began_s > RETRY_MAX_S:
                    pause_s = RETRY_FIRST_S  # it stood for a while: what ended it is new
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            except DllmError as error:
                self._drop(error)
                raise

    async def close(self) -> None:
        """Listen no more, and end every stream."""
        for task in list(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        connection, self._connection, self.is_listening = self._connection, None, False
        if connection is not None:
            await connection.close()

    async def _answer_rings(self) -> None:
        connection = self._connection
        while connection is not None:
            ring = await connection.hear(Incoming, None)
            if len(self._serving) >= self._streams_max:
                await connection.say(Decline(ring.ticket))
                continue
            task = asyncio.create_task(self._serve(ring))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, ring: Incoming) -> None:
        try:
            stream = await answer(
                self._url, ring.ticket, limits=self._limits, message_bytes=self._message_bytes
            )
        except DllmError as error:
            _log.info("whoever dialled was not reached: %s", error.message)
            return
        try:
            await self._on_stream(stream)
            await stream.close()
        except DllmError as error:
            _log.info("a stream ended: %s", error.message)
            stream.abort()
        except asyncio.CancelledError:
            stream.abort()
            raise

    def _drop(self, error: DllmError) -> None:
        self.problem = error.message
        if self._connection is not None:
            self._connection.abort()
        self._connection, self.is_listening = None, False
