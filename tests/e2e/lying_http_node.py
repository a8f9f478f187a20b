"""A node that lies over plain HTTP, as `cometbft light` asks: a proxy before a real one that changes answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.e2e.lying_node import Lie


@asynccontextmanager
async def lying_http_node(real_url: str, *lies: Lie) -> AsyncIterator[str]:
    """Its http:// address."""

    async def handle(request: web.Request) -> web.Response:
        call = json.loads(await request.read())
        async with http.post(real_url, json=call) as response:
            answer = json.loads(await response.read())
        for lie in lies:
            if lie.method == call["method"] and "result" in answer:
                answer["result"] = lie.answer(answer["result"], dict(call["params"] or {}))
        return web.json_response(answer)

    async def listen(request: web.Request) -> web.WebSocketResponse:
        """`cometbft light` opens one to its primary for subscriptions, and asks nothing over it here."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    application = web.Application()
    application.router.add_post("/", handle)
    application.router.add_get("/websocket", listen)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    async with aiohttp.ClientSession() as http:
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()
