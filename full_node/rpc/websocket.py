"""One websocket: calls side by side, and subscriptions to blocks, headers and transactions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine

from aiohttp import WSCloseCode, WSMsgType, web

from dllm_protocol.jsonrpc.errors import RpcError, internal_error, server_error
from dllm_protocol.jsonrpc.params import Kind, from_json
from dllm_protocol.jsonrpc.query import Query, parse_query
from dllm_protocol.jsonrpc.requests import Request, RequestId, failure, load_json, request_from, success
from full_node.consensus.events import Subscription
from full_node.rpc.announcements import announcements
from full_node.rpc.calls import answer
from full_node.rpc.context import JsonObject, RpcContext
from full_node.rpc.guard import RpcLimits
from full_node.rpc.methods import METHODS

_QUERY = {"query": Kind.TEXT}


class WebsocketSession:
    """One client; closes when it sends what is no request, or does not read what it asked for."""

    def __init__(self, socket: web.WebSocketResponse, context: RpcContext, limits: RpcLimits) -> None:
        """`socket` is prepared already."""
        self._socket = socket
        self._context = context
        self._limits = limits
        self._subscriptions: dict[str, tuple[Subscription, asyncio.Task[None]]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Serves until either side closes."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    break
                if len(self._calls) >= self._limits.calls_per_websocket:
                    await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
                self._take(message.data)
        finally:
            self._drop_subscriptions()
            for task in self._calls:
                task.cancel()
            await self._socket.close()

    async def close(self) -> None:
        """The node is going away."""
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
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _serve(self, request: Request) -> None:
        special: Callable[[Request], JsonObject] | None = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "unsubscribe_all": self._unsubscribe_all,
        }.get(request.method)
        if special is None:
            await self._send(await answer(self._context, METHODS, request))
            return
        try:
            response = success(request.id, special(request))
        except RpcError as error:
            response = failure(request.id, error)
        await self._send(response)

    def _subscribe(self, request: Request) -> JsonObject:
        text = from_json(_QUERY, request.params)["query"] or ""
        query = parse_query(text)
        if text in self._subscriptions:
            raise internal_error("already subscribed")
        if len(self._subscriptions) >= self._limits.subscriptions_per_client:
            raise internal_error(
                f"max_subscriptions_per_client {self._limits.subscriptions_per_client} reached"
            )
        subscription = self._context.engine.events.subscribe()
        task = asyncio.create_task(self._announce(request.id, query, subscription))
        self._subscriptions[text] = subscription, task
        return {}

    def _unsubscribe(self, request: Request) -> JsonObject:
        text = from_json(_QUERY, request.params)["query"] or ""
        if text not in self._subscriptions:
            raise internal_error("subscription not found")
        self._drop(text)
        return {}

    def _unsubscribe_all(self, request: Request) -> JsonObject:
        from_json({}, request.params)
        if not self._subscriptions:
            raise internal_error("subscription not found")
        self._drop_subscriptions()
        return {}

    def _drop_subscriptions(self) -> None:
        for text in list(self._subscriptions):
            self._drop(text)

    def _drop(self, text: str) -> None:
        subscription, task = self._subscriptions.pop(text)
        self._context.engine.events.unsubscribe(subscription)
        task.cancel()

    async def _announce(self, request_id: RequestId, query: Query, subscription: Subscription) -> None:
        while (made := await subscription.next()) is not None:
            for announcement in announcements(query, made):
                await self._send(success(request_id, announcement))
        if subscription.lagged:
            reason = "client is not pulling messages fast enough"
            await self._send(
                failure(request_id, server_error(f"subscription was canceled (reason: {reason})"))
            )

    async def _send(self, body: JsonObject) -> None:
        text = json.dumps(body, separators=(",", ":"))
        try:
            async with asyncio.timeout(self._limits.write_timeout_s), self._writing:
                await self._socket.send_str(text)
        except (ConnectionError, RuntimeError):
            return  # the client has gone; `run` sees that too
        except TimeoutError:
            await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
