"""CometBFT's JSON-RPC over HTTP POST, GET with a query string, and a websocket at /websocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from dllm_protocol.jsonrpc.errors import RpcError, invalid_request, method_not_found
from dllm_protocol.jsonrpc.params import from_query
from dllm_protocol.jsonrpc.requests import URI_ID, Request, failure, load_json, request_from, success
from full_node.rpc.calls import answer, count, invoke
from full_node.rpc.context import JsonObject, RpcContext
from full_node.rpc.guard import Door, RpcLimits, guard
from full_node.rpc.methods import METHODS
from full_node.rpc.websocket import WebsocketSession

STOP_WAIT_S = 1.0


class RpcServer:
    """Serves one node."""

    def __init__(self, context: RpcContext, door: Door, limits: RpcLimits | None = None) -> None:
        """Prepares; nothing listens before `start`."""
        self._context = context
        self._door = door
        self._limits = limits or RpcLimits()
        self._runner: web.AppRunner | None = None
        self._sessions: set[WebsocketSession] = set()

    async def start(self) -> str:
        """Begins to listen; returns `host:port`. Raises OSError when the address is taken."""
        application = web.Application(
            client_max_size=self._limits.body_bytes,
            middlewares=[guard(self._door, self._limits, self._connections)],
        )
        application.router.add_post("/", self._post)
        application.router.add_get("/", self._index)
        application.router.add_get("/websocket", self._websocket)
        application.router.add_get("/{method}", self._get)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_WAIT_S)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, self._door.host, self._door.port).start()
        host, port = runner.addresses[0][:2]
        self._context.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self._context.address

    async def stop(self) -> None:
        """Closes every connection."""
        for session in list(self._sessions):
            await session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _connections(self) -> int:
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    async def _index(self, _request: web.Request) -> web.Response:
        lines = [f"/{name}?{'&'.join(f'{one}=_' for one in METHODS[name].shape)}" for name in sorted(METHODS)]
        return web.Response(text="\n".join(["Available endpoints:", *lines, "/websocket", ""]))

    async def _post(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(self._limits.read_timeout_s):
                body = await request.read()
        except TimeoutError:
            refusal = invalid_request(f"the request body took over {self._limits.read_timeout_s:g} s")
            response = _json(failure(None, refusal), 408)
            response.force_close()
            return response
        except web.HTTPRequestEntityTooLarge:
            refusal = invalid_request(
                f"error reading request body: more than {self._limits.body_bytes} bytes"
            )
            return _json(failure(None, refusal), 413)
        try:
            given = load_json(body)
        except RpcError as error:
            return _json(failure(None, error), 500)
        batch = given if isinstance(given, list) else [given]
        if len(batch) > self._limits.batch_requests:
            refusal = invalid_request(
                f"batch request exceeds maximum ({len(batch)} > {self._limits.batch_requests})"
            )
            return _json(failure(None, refusal), 500)
        answers = [found for one in batch if (found := await self._answer(one)) is not None]
        if not answers:
            return web.Response()
        return _json(answers if isinstance(given, list) else answers[0])

    async def _answer(self, given: object) -> JsonObject | None:
        try:
            request: Request = request_from(given)
        except RpcError as error:
            return failure(None, error)
        if request.is_notification:
            return None  # CometBFT drops notifications unheard
        return await answer(self._context, METHODS, request)

    async def _get(self, request: web.Request) -> web.Response:
        name = request.match_info["method"]
        method = METHODS.get(name)
        if method is None:
            status = 404
            return _json(failure(URI_ID, method_not_found()), status)
        try:
            result = await invoke(self._context, method, from_query(method.shape, request.query))
        except RpcError as error:
            count(self._context, METHODS, name, error)
            return _json(failure(URI_ID, error), 500)
        count(self._context, METHODS, name, None)
        return _json(success(URI_ID, result))

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if len(self._sessions) >= self._limits.websockets:
            raise web.HTTPServiceUnavailable(text="too many websockets")
        socket = web.WebSocketResponse(
            max_msg_size=self._limits.body_bytes, heartbeat=self._limits.ping_s, compress=False
        )
        await socket.prepare(request)
        session = WebsocketSession(socket, self._context, self._limits)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
        return socket


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body, separators=(",", ":")).encode(),
        status=status,
        content_type="application/json",
        headers={"X-Content-Type-Options": "nosniff"},
    )
