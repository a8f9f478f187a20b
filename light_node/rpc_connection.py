"""JSON-RPC 2.0 over one websocket, as CometBFT speaks it: many calls at once, answers matched by id.

Everything is bounded: message size (by what was asked), calls in flight, events waiting, seconds from a question to its
whole answer. A node that lets a message drip in without end is left by the websocket's own keepalive. A connection that
breaks fails what was in flight; the next call makes a new one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException
from websockets.frames import CloseCode

from dllm_protocol.errors import DllmError
from light_node.errors import (
    HeightUnavailable,
    SourceMalformed,
    SourceRefusal,
    SourceTimedOut,
    SourceUnreachable,
)
from light_node.pings import DialedConnection

MESSAGE_BYTES_MAX = 32 << 20
ANSWER_BYTES_MAX = 1 << 20
"""Bound on an answer whose caller asks for no more."""
EVENT_BYTES_MAX = 1 << 20
CALLS_MAX = 64
EVENTS_MAX = 64
CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0
_ERROR_TEXT_MAX = 300
_REFUSAL_BYTES_MAX = 64 << 10
_HEIGHT_WORDS = ("must be less than or equal to", "is not available", "lowest height is")


class RpcConnection:
    """One websocket to one node."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """Prepare; nothing is opened before the first call.

        Args:
            url: ws:// or wss:// address of the node's /websocket.
            token: sent as a bearer token when not empty.
            timeout_s: longest wait for one answer.
            message_bytes_max: longest message taken from the node.
        """
        self.url = url
        self._token = token
        self._timeout_s = timeout_s
        self._message_bytes_max = message_bytes_max
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._in_flight = asyncio.Semaphore(CALLS_MAX)
        self._waiting: dict[int, _Call] = {}
        self._queries: dict[int, str] = {}
        self._readers: dict[str, list[asyncio.Queue[object | None]]] = {}
        self._last_id = 0
        self._late_bytes_max = _REFUSAL_BYTES_MAX
        self._closed = False

    async def call(
        self,
        method: str,
        params: Mapping[str, object],
        *,
        timeout_s: float | None = None,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> object:
        """Make one call and return its result.

        Args:
            timeout_s: longest wait from the question to the whole answer.
            bytes_max: longest answer that is read.

        Raises:
            SourceUnreachable, SourceTimedOut, SourceRefusal, SourceMalformed.
        """
        async with self._in_flight:
            self._last_id += 1
            return await self._exchange(
                self._last_id, method, params, timeout_s or self._timeout_s, bytes_max
            )

    async def events(self, query: str) -> AsyncIterator[object]:
        """Subscribe, and yield each event's data until the connection ends (SourceUnreachable).

        A node takes a query once a connection, so all readers of a query share one subscription; the last one
        to go ends it. A reader that is too slow loses the oldest events, never the newest.
        """
        queue: asyncio.Queue[object | None] = asyncio.Queue(EVENTS_MAX)
        readers = self._readers.setdefault(query, [])
        readers.append(queue)
        try:
            if len(readers) == 1:
                await self._subscribe(query)
            while True:
                event = await queue.get()
                if event is None:
                    raise SourceUnreachable(f"the connection to {self.url} ended during a subscription")
                yield event
        finally:
            readers.remove(queue)
            if not readers:
                await self._unsubscribe(query)

    async def _subscribe(self, query: str) -> None:
        self._last_id += 1
        self._queries[self._last_id] = query
        await self._exchange(self._last_id, "subscribe", {"query": query}, self._timeout_s, ANSWER_BYTES_MAX)

    async def _unsubscribe(self, query: str) -> None:
        """Tell the node, if it still listens, without waiting for its answer."""
        self._queries = {call_id: other for call_id, other in self._queries.items() if other != query}
        self._last_id += 1
        message = {"jsonrpc": "2.0", "id": self._last_id, "method": "unsubscribe", "params": {"query": query}}
        if self._socket is not None:
            with suppress(OSError, WebSocketException):  # the subscription ends with the connection
                await self._socket.send(json.dumps(message))

    async def close(self) -> None:
        """Close for good; what is in flight fails."""
        self._closed = True
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)
        self._fail_all(SourceUnreachable(f"the connection to {self.url} was closed here"))

    async def _exchange(
        self, call_id: int, method: str, params: Mapping[str, object], timeout_s: float, bytes_max: int
    ) -> object:
        request = json.dumps({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = _Call(method, answer, bytes_max)
        try:
            async with asyncio.timeout(timeout_s):
                socket = await self._connected()
                await socket.send(request)
                return await answer
        except TimeoutError as error:
            # The answer may still come; that it is late is not held against its size.
            self._late_bytes_max = max(self._late_bytes_max, bytes_max)
            raise SourceTimedOut(
                f"{self.url} did not answer {method} within {timeout_s:g} s",
                hint="try again, or another node",
            ) from error
        except (OSError, WebSocketException) as error:
            raise self._unreachable(error) from error
        finally:
            self._waiting.pop(call_id, None)

    async def _connected(self) -> ClientConnection:
        async with self._opening:
            if self._closed:
                raise SourceUnreachable(f"the connection to {self.url} was closed here")
            if self._socket is not None:
                return self._socket
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            try:
                socket = await connect(
                    self.url,
                    additional_headers=headers,
                    max_size=self._message_bytes_max,
                    open_timeout=CONNECT_TIMEOUT_S,
                    close_timeout=CLOSE_TIMEOUT_S,
                    compression=None,
                    create_connection=DialedConnection,
                    # A proxy from the environment would see every question, and none is wanted on loopback.
                    proxy=None,
                )
            except (OSError, InvalidHandshake, InvalidURI) as error:
                raise self._unreachable(error) from error
            self._socket = socket
            self._reader = asyncio.create_task(self._read(socket))
            return socket

    def _unreachable(self, error: BaseException) -> SourceUnreachable:
        refused = isinstance(error, ConnectionRefusedError)
        words = "nobody listens there" if refused else str(error)[:_ERROR_TEXT_MAX] or type(error).__name__
        return SourceUnreachable(f"cannot talk to {self.url}: {words}", hint="is the node running?")

    async def _read(self, socket: ClientConnection) -> None:
        failure: DllmError = self._ended("the node closed the connection")
        try:
            async for message in socket:
                self._dispatch(message)
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG:
                failure = SourceMalformed(f"{self.url} sent a message above {self._message_bytes_max} bytes")
            else:
                failure = self._ended(str(error)[:_ERROR_TEXT_MAX])
        except (OSError, WebSocketException) as error:
            failure = self._ended(str(error)[:_ERROR_TEXT_MAX] or type(error).__name__)
        except SourceMalformed as error:
            failure = error
        finally:
            if self._socket is socket:
                self._socket = None
            self._fail_all(failure)
            await socket.close()

    def _ended(self, reason: str) -> SourceUnreachable:
        return SourceUnreachable(f"{self.url}: {reason}", hint="is the node running?")

    def _fail_all(self, error: DllmError) -> None:
        for call in self._waiting.values():
            if not call.answer.done():
                call.answer.set_exception(type(error)(error.message, hint=error.hint))
        for readers in self._readers.values():
            for queue in readers:
                _put_newest(queue, None)

    def _dispatch(self, message: str | bytes) -> None:
        self._check_size(len(message))
        try:
            decoded: Any = json.loads(message)
        except (ValueError, RecursionError) as error:
            raise SourceMalformed(f"{self.url} sent something that is not JSON") from error
        if not isinstance(decoded, dict) or not isinstance(decoded.get("id"), int):
            raise SourceMalformed(f"{self.url} sent a message without a numeric id")
        call_id = decoded["id"]
        call = self._waiting.get(call_id)
        if call is not None and not call.answer.done():
            if decoded.get("error") is not None:
                call.answer.set_exception(_refusal(decoded["error"]))
            else:
                call.answer.set_result(decoded.get("result"))
        elif call_id in self._queries:
            for queue in self._readers.get(self._queries[call_id], ()):
                _put_newest(queue, decoded.get("result"))

    def _check_size(self, size: int) -> None:
        """Refuse what is longer than anything that is waited for, before it is taken apart."""
        allowed = max((call.bytes_max for call in self._waiting.values()), default=0)
        if size > max(allowed, EVENT_BYTES_MAX if self._queries else 0, self._late_bytes_max):
            methods = ", ".join(sorted({call.method for call in self._waiting.values()})) or "nothing"
            raise SourceMalformed(
                f"{self.url} sent {size} bytes, at most {allowed} are taken in answer to {methods}",
                hint="the node is broken or hostile: use another one",
            )


@dataclass(frozen=True, slots=True)
class _Call:
    """A question that waits for its answer."""

    method: str
    answer: asyncio.Future[object]
    bytes_max: int


def _put_newest(queue: asyncio.Queue[object | None], event: object | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)


def _refusal(error: object) -> SourceRefusal:
    if not isinstance(error, dict):
        return SourceRefusal(f"the node answered with an error: {str(error)[:_ERROR_TEXT_MAX]}")
    words = f"{error.get('message', '')} {error.get('data') or ''}".strip()[:_ERROR_TEXT_MAX]
    kind = HeightUnavailable if any(known in words for known in _HEIGHT_WORDS) else SourceRefusal
    code = error.get("code")
    return kind(f"the node answered with error {code if type(code) is int else '?'}: {words}")
