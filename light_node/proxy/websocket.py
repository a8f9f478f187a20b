"""The websocket: calls as over HTTP, and subscriptions to verified blocks, headers and transactions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine

from aiohttp import WSCloseCode, WSMsgType, web

from dllm_protocol.errors import DllmError
from dllm_protocol.jsonrpc.errors import RpcError, internal_error, server_error
from dllm_protocol.jsonrpc.params import Kind, from_json
from dllm_protocol.jsonrpc.query import Query, parse_query
from dllm_protocol.jsonrpc.requests import Request, RequestId, failure, load_json, request_from, success
from light_node.proxy.announcements import announcements, require_subscribable
from light_node.proxy.calls import Calls, refused
from light_node.proxy.context import JsonObject
from light_node.proxy.follower import new_verified_heights
from light_node.proxy.guard import ProxyLimits

_QUERY = {"query": Kind.TEXT}


class WebsocketSession:
    """One client; closes when it sends what is no request, or does not read what it asked for."""

    def __init__(self, socket: web.WebSocketResponse, calls: Calls, limits: ProxyLimits) -> None:
        """`socket` is prepared already."""
        self._socket = socket
        self._calls = calls
        self._limits = limits
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Serve until either side closes."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    break
                if len(self._tasks) >= self._limits.calls_per_websocket:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                self._take(message.data)
        finally:
            tasks = [*self._tasks, *self._subscriptions.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._socket.close()

    async def close(self) -> None:
        """The proxy is going away."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY)

    def _take(self, text: str) -> None:
        try:
            given = load_json(text)
            requests = [request_from(one) for one in (given if isinstance(given, list) else [given])]
        except RpcError as error:
            self._spawn(self._send(failure(None, error)))
            return
        for request in requests[: self._limits.batch_requests]:
            if not request.is_notification:
                self._spawn(self._serve(request))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: Request) -> None:
        special: dict[str, Callable[[Request], Awaitable[JsonObject]]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "unsubscribe_all": self._unsubscribe_all,
        }
        if request.method not in special:
            await self._send(await self._calls.answer(request))
            return
        try:
            response = success(request.id, await special[request.method](request))
        except RpcError as error:
            response = failure(request.id, error)
        except DllmError as error:
            response = failure(request.id, refused(error))
        await self._send(response)

    async def _subscribe(self, request: Request) -> JsonObject:
        query = parse_query(from_json(_QUERY, request.params)["query"] or "")
        require_subscribable(query)
        after = (await self._calls.context.proving.tip()).height
        if query.text in self._subscriptions:
            raise internal_error("already subscribed")
        if len(self._subscriptions) >= self._limits.subscriptions_per_client:
            raise internal_error(
                f"max_subscriptions_per_client {self._limits.subscriptions_per_client} reached"
            )
        self._subscriptions[query.text] = asyncio.create_task(self._announce(request.id, query, after))
        return {}

    async def _unsubscribe(self, request: Request) -> JsonObject:
        text = from_json(_QUERY, request.params)["query"] or ""
        if text not in self._subscriptions:
            raise internal_error("subscription not found")
        self._subscriptions.pop(text).cancel()
        return {}

    async def _unsubscribe_all(self, request: Request) -> JsonObject:
        from_json({}, request.params)
        if not self._subscriptions:
            raise internal_error("subscription not found")
        for task in self._subscriptions.values():
            task.cancel()
        self._subscriptions.clear()
        return {}

    async def _announce(self, request_id: RequestId, query: Query, after: int) -> None:
        proving = self._calls.context.proving
        try:
            async for height in new_verified_heights(proving, after):
                async for told in announcements(proving, query, height):
                    await self._send(success(request_id, told))
        except DllmError as error:
            reason = f"subscription was canceled (reason: {error.code}: {error.message})"
            self._subscriptions.pop(query.text, None)
            await self._send(failure(request_id, server_error(reason)))

    async def _send(self, body: JsonObject) -> None:
        text = json.dumps(body, separators=(",", ":"))
        try:
            async with asyncio.timeout(self._limits.write_timeout_s), self._writing:
                await self._socket.send_str(text)
        except (ConnectionError, RuntimeError):
            return  # the client has gone; `run` sees that too
        except TimeoutError:
            await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
