"""The load generator of the chain benchmarks: transactions made beforehand, handed in over websockets, timed to the
block that has the last one.

It stands for wallets: each connection hands one in, waits for the answer, and only then has another. There are many,
because CometBFT waits up to 10 ms before it passes a check on to an application outside its own process; few wallets
would measure that wait. What the generator itself costs is in every contestant's figure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import aiohttp

from dllm_protocol.json_shape import to_base64

WALLETS_A_NODE = 80
"""Connections; a solo node takes 100."""
POLL_S = 0.02
GIVE_UP_S = 300.0
METAS_A_PAGE = 20


async def finalised_a_second(addresses: Sequence[str], txs: Sequence[bytes]) -> float:
    """Transactions a second, from the first call to the block in which the last one stands at the first node.

    Args:
        addresses: host:port of the nodes that transactions are handed to, in equal parts.
        txs: all of which must be accepted.

    Raises:
        RuntimeError: one was refused, or the chain did not take them all.
    """
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        height = await _height(http, addresses[0])
        wallets = WALLETS_A_NODE * len(addresses)
        parts = [txs[number::wallets] for number in range(wallets)]
        started = time.perf_counter()
        async with asyncio.TaskGroup() as sending:
            for number, part in enumerate(parts):
                sending.create_task(_hand_in(http, addresses[number % len(addresses)], part))
        await _until_in_blocks(http, addresses[0], height, len(txs))
        return len(txs) / (time.perf_counter() - started)


async def _hand_in(http: aiohttp.ClientSession, address: str, txs: Sequence[bytes]) -> None:
    async with http.ws_connect(f"ws://{address}/websocket", max_msg_size=0) as socket:
        for tx in txs:
            call = {"jsonrpc": "2.0", "id": 1, "method": "broadcast_tx_sync", "params": {"tx": to_base64(tx)}}
            await socket.send_str(json.dumps(call))
            answer = json.loads(await socket.receive_str())
            if answer.get("result", {}).get("code") != 0:
                raise RuntimeError(f"{address} refused a transaction: {answer}")


async def _until_in_blocks(http: aiohttp.ClientSession, address: str, above: int, count: int) -> None:
    deadline = time.perf_counter() + GIVE_UP_S
    found, seen = 0, above
    while time.perf_counter() < deadline:
        tip = await _height(http, address)
        while seen < tip:
            top = min(tip, seen + METAS_A_PAGE)
            found += await _txs_between(http, address, seen + 1, top)
            seen = top
        if found >= count:
            return
        await asyncio.sleep(POLL_S)
    raise RuntimeError(f"{found} of {count} transactions are in blocks after {GIVE_UP_S:g} s")


async def _height(http: aiohttp.ClientSession, address: str) -> int:
    async with http.get(f"http://{address}/status") as response:
        return int((await response.json())["result"]["sync_info"]["latest_block_height"])


async def _txs_between(http: aiohttp.ClientSession, address: str, low: int, high: int) -> int:
    async with http.get(f"http://{address}/blockchain?minHeight={low}&maxHeight={high}") as response:
        metas = (await response.json())["result"]["block_metas"]
    return sum(int(meta["num_txs"]) for meta in metas)
