"""Light clients whose nodes are scripted servers on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection

from light_node.client import LightClient, TrustOptions
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.light_node.rpc_server import Answer, ScriptedNode, send_result
from tests.light_node.signed_chain import ChainSource, ManualClock, SignedChain

TIMEOUT_S = 60.0


def a_minute_after(chain: SignedChain) -> ManualClock:
    """A clock a minute after the chain's tip."""
    clock = ManualClock(chain.blocks[chain.height].header.time)
    clock.advance_s(60)
    return clock


@asynccontextmanager
async def client_of(
    folder: Path,
    root: SignedChain,
    primary: ScriptedNode,
    witnesses: Sequence[ScriptedNode] = (),
    *,
    timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[LightClient]:
    """A client over sockets that trusts block 1 of `root`; `timeout_s` is for answers of the primary."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(node.running()) for node in (primary, *witnesses)]
        first = RpcSource(urls[0], timeout_s=timeout_s)
        others = [RpcSource(url, timeout_s=TIMEOUT_S) for url in urls[1:]]
        client = LightClient(
            root.chain_id,
            TrustOptions(1, root.blocks[1].hash()),
            TrustStore(folder / "light.db", root.chain_id),
            first,
            others,
            clock=a_minute_after(root),
        )
        stack.push_async_callback(client.close)
        yield client


def node_of(chain: SignedChain) -> ScriptedNode:
    """An honest server of a chain, which may be a forged one."""
    return ScriptedNode(ChainSource(chain))


def twisted(node: ScriptedNode, change: Callable[[Any, dict[str, Any]], None]) -> Answer:
    """Answers as the node would, after a change that sees the result and the parameters."""

    async def answer(socket: ServerConnection, request: dict[str, Any]) -> None:
        result = await node._result(request["method"], request["params"])
        change(result, request["params"])
        await send_result(socket, request, result)

    return answer
