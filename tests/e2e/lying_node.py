"""A node that lies: a JSON-RPC proxy before a real one that changes questions on the way in, answers on the way out."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Params = dict[str, Any]


@dataclass
class Lie:
    """What one call becomes: its parameters before the real node sees them, its result before the client does.

    The method "event" stands for the announcements of a subscription.
    """

    method: str
    ask: Callable[[Params], Params] = field(default=lambda params: params)
    answer: Callable[[Any, Params], Any] = field(default=lambda result, _: result)
    """(result, parameters as the client asked); may raise `Hidden`."""
    becomes: str = ""
    """Another method that the real node is asked instead."""


class Hidden(Exception):
    """The lie is that there is nothing."""


@asynccontextmanager
async def lying_node(real_url: str, *lies: Lie) -> AsyncIterator[str]:
    """Its address."""

    async def handle(client: ServerConnection) -> None:
        async with connect(real_url, max_size=1 << 26, proxy=None) as real:
            asked: dict[int, tuple[str, Params]] = {}
            back = asyncio.create_task(_pass_on_lying(real, client, asked, lies))
            try:
                async for message in client:
                    call = json.loads(message)
                    asked[call["id"]] = call["method"], dict(call["params"])
                    for lie in lies:
                        if lie.method == call["method"]:
                            call["params"] = lie.ask(dict(call["params"]))
                            call["method"] = lie.becomes or call["method"]
                    await real.send(json.dumps(call))
            except ConnectionClosed:
                return  # the client has seen enough
            finally:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)

    async with serve(handle, "127.0.0.1", 0, max_size=1 << 26) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/websocket"


async def _pass_on_lying(
    real: ClientConnection,
    client: ServerConnection,
    asked: dict[int, tuple[str, Params]],
    lies: Sequence[Lie],
) -> None:
    """Answers and announcements, answers changed."""
    async for message in real:
        answer = json.loads(message)
        method, params = asked.get(answer["id"], ("", {}))
        if method == "subscribe":
            asked[answer["id"]] = "event", params
        try:
            for lie in lies:
                if lie.method == method and "result" in answer:
                    answer["result"] = lie.answer(answer["result"], params)
        except Hidden as hidden:
            del answer["result"]
            answer["error"] = {"code": -32603, "message": "Internal error", "data": str(hidden)}
        await client.send(json.dumps(answer))


def from_base64(text: str) -> bytes:
    return base64.b64decode(text)


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
