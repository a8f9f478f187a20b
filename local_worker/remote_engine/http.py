"""The edge to a server: requests with bounds on time and size, no redirects, no cookies, no proxies, nothing
unpacked.

The key goes into one header of requests to the server's own address, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp

from dllm_protocol.errors import DllmError
from local_worker.remote_engine.answers import EventReader, error_words, json_of
from local_worker.remote_engine.errors import (
    RemoteBusy,
    RemoteContextFull,
    RemoteCutOff,
    RemoteKeyRefused,
    RemoteMalformed,
    RemoteRefused,
    RemoteTimedOut,
    RemoteUnreachable,
    quoted,
)
from local_worker.remote_engine.options import RemoteServer

END: Final = b"[DONE]"
_READ_BYTES = 1 << 16
_ERROR_BYTES = 1 << 16
_CONTEXT_WORDS = ("context_length_exceeded", "context length", "context window", "context size")
_BUSY = frozenset({429, 503, 529})


class RemoteStream:
    """An answer that comes in pieces."""

    def __init__(self, http: RemoteHttp, response: aiohttp.ClientResponse) -> None:
        self._http = http
        self._response = response
        self._reader = EventReader(http.server.limits.max_event_bytes)
        self._events: list[bytes] = []
        self._ended = False

    async def next_event(self, timeout_s: float) -> bytes | None:
        """The data of the next event; None when the server has said that there is no more.

        Raises:
            RemoteTimedOut, RemoteCutOff, RemoteMalformed
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._events and not self._ended:
                    data = await self._response.content.read(_READ_BYTES)
                    if not data:
                        raise RemoteCutOff("the server closed in the middle of an answer")
                    self._events += self._reader.feed(data)
        except TimeoutError:
            raise RemoteTimedOut(f"the server's stream gave nothing for {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteCutOff(f"the server broke off: {type(error).__name__}") from None
        event = self._events.pop(0) if self._events else END
        if event == END:
            self._ended = True
            return None
        return event

    def close(self) -> None:
        """Drop it; the server notices and stops."""
        self._response.close()


class RemoteHttp:
    """Connections to one server."""

    def __init__(self, server: RemoteServer, connections: int) -> None:
        self.server = server
        headers = {"Accept-Encoding": "identity", "User-Agent": "dllm-worker"}
        if server.key:
            headers["Authorization"] = f"Bearer {server.key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=server.limits.connect_s),
            auto_decompress=False,
            trust_env=False,
        )

    async def get(self, path: str) -> bytes:
        """An answer's whole body.

        Raises:
            RemoteUnreachable, RemoteTimedOut, RemoteKeyRefused, RemoteBusy, RemoteRefused, RemoteMalformed
        """
        async with self._asked("GET", path, None, self.server.limits.answer_s) as response:
            return await self._body(response)

    async def post(self, path: str, body: Mapping[str, object], *, timeout_s: float | None = None) -> bytes:
        """The same for a question with a body.

        Raises:
            As `get`; RemoteContextFull.
        """
        patience_s = self.server.limits.answer_s if timeout_s is None else timeout_s
        async with self._asked("POST", path, body, patience_s) as response:
            return await self._body(response)

    async def open(self, path: str, body: Mapping[str, object]) -> RemoteStream:
        """Ask for an answer in pieces; returns when it begins.

        Raises:
            As `post`.
        """
        patience_s = self.server.limits.first_row_s
        try:
            async with asyncio.timeout(patience_s):
                response = await self._send("POST", path, body)
        except TimeoutError:
            raise self._late(path, patience_s) from None
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            kind = response.headers.get("Content-Type", "")
            response.close()
            raise RemoteMalformed(f"the server answers {quoted(kind)} where a stream of events was asked for")
        return RemoteStream(self, response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @contextlib.asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: Mapping[str, object] | None, patience_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with asyncio.timeout(patience_s):
                response = await self._send(method, path, body)
                try:
                    yield response
                finally:
                    response.release()
        except TimeoutError:
            raise self._late(path, patience_s) from None
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteCutOff(f"the server broke off: {type(error).__name__}") from None

    def _late(self, path: str, patience_s: float) -> RemoteTimedOut:
        return RemoteTimedOut(
            f"{self.server.url}{path} gave no answer in {patience_s:g} s",
            hint="look whether the server is overloaded",
        )

    async def _send(
        self, method: str, path: str, body: Mapping[str, object] | None
    ) -> aiohttp.ClientResponse:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            response = await self._session.request(
                method, self.server.url + path, data=data, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            # No chain: what aiohttp knows of the request has the key in it.
            raise RemoteUnreachable(
                f"{self.server.url} does not answer: {quoted(_reason(error))}",
                hint="is the server running, and is the address right?",
            ) from None
        if response.status == 200:
            return response
        try:
            raise await self._failure(response)
        finally:
            response.close()

    async def _failure(self, response: aiohttp.ClientResponse) -> DllmError:
        status = response.status
        if 300 <= status < 400:
            return RemoteRefused(
                f"{self.server.url} redirects (status {status}), which is not followed",
                hint="name the address that it leads to",
            )
        words = await self._error_words(response)
        said = f"the server answers {status}" + (f": {quoted(words)}" if words else "")
        if status in (401, 403):
            return RemoteKeyRefused(said, hint="put the server's key into a file: --api-key-file FILE")
        if status in _BUSY:
            busy = RemoteBusy(said, hint="try again in a moment")
            busy.retry_after_s = _seconds(response.headers.get("Retry-After", ""))
            return busy
        if any(part in words.lower() for part in _CONTEXT_WORDS):
            return RemoteContextFull(said, hint="give the worker a --context below the server's")
        hint = "does the address end as the server's does, in /v1 mostly?" if status == 404 else ""
        return RemoteRefused(said, hint=hint)

    async def _error_words(self, response: aiohttp.ClientResponse) -> str:
        """What an error's body says, where it is JSON and comes soon; an error without words is one all the same."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.server.limits.connect_s):
                while len(body) < _ERROR_BYTES and (data := await response.content.read(_ERROR_BYTES)):
                    body += data
            whole = json_of(bytes(body))
        except (DllmError, TimeoutError, aiohttp.ClientError, OSError):
            return ""
        return error_words(whole) if isinstance(whole, dict) else ""

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        bound = self.server.limits.max_answer_bytes
        body = bytearray()
        while data := await response.content.read(_READ_BYTES):
            body += data
            if len(body) > bound:
                response.close()
                raise RemoteMalformed(f"the server's answer is above {bound} bytes")
        return bytes(body)


def _reason(error: Exception) -> str:
    """Why a connection failed: the system's words where there are some."""
    inner = getattr(error, "os_error", error)
    return getattr(inner, "strerror", "") or type(error).__name__


def _seconds(words: str) -> float:
    return float(words) if words.isdecimal() and len(words) < 6 else 0.0
