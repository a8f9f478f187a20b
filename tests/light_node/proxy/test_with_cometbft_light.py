"""CometBFT's own light client takes the proxy for a full node, and a full node for its witness."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dllm_protocol.json_shape import to_hex
from tests.light_node.proxy.rig import TOKEN, ChainNode, proxy_before, send
from tools.conformance.comet_light import CometLight, LightTarget


async def test_it_verifies_the_chain_through_the_proxy(
    node: ChainNode, tmp_path: Path, cometbft: Path
) -> None:
    await send(node)
    async with proxy_before(node, tmp_path / "proxy", witnesses=[node.websocket]) as proxy:
        first = await proxy.client.verified_header(1)
        tip = await proxy.client.sync()
        target = LightTarget(
            node.chain_id,
            # How it sends a token: as the password in the address.
            f"http://dllm:{TOKEN}@{proxy.address}",
            [node.url],
            1,
            to_hex(first.hash()),
        )

        def ask() -> str:
            with CometLight(cometbft, tmp_path / "comet", target) as light:
                return light.header_hash(tip.height)

        assert await asyncio.to_thread(ask) == to_hex(tip.hash())
