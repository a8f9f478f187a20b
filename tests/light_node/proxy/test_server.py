"""The proxy's door: who may come in, what is too much, and how the answers travel."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path

import aiohttp
import pytest

from dllm_protocol.errors import UsageRefused
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.proxy.guard import ProxyDoor, ProxyLimits
from light_node.proxy.token import read_or_make_token
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.light_node.proxy.rig import TOKEN, ChainNode, proxy_before

BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BEARER, 200),
        (BASIC, 200),
        ({}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": TOKEN}, 401),
        ({"Authorization": "Basic %%%"}, 401),
        (BEARER | {"Host": "evil.example"}, 403),
        (BEARER | {"Host": "localhost:80"}, 200),
        (BEARER | {"Origin": "http://evil.example"}, 403),
        (BEARER | {"Origin": "null"}, 403),
    ],
)
async def test_host_origin_and_token_are_checked_on_every_way_in(
    node: ChainNode, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with proxy_before(node, tmp_path) as proxy, aiohttp.ClientSession() as http:
        call = {"jsonrpc": "2.0", "id": 1, "method": "health"}
        async with http.post(f"http://{proxy.address}/", json=call, headers=headers) as response:
            assert response.status == status
        async with http.get(f"http://{proxy.address}/health", headers=headers) as response:
            assert response.status == status
        if status == 200:
            async with http.ws_connect(f"http://{proxy.address}/websocket", headers=headers) as socket:
                await socket.send_json(call)
                assert (await socket.receive_json())["result"] == {}
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"http://{proxy.address}/websocket", headers=headers)
            assert refused.value.status == status


async def test_a_get_reads_its_parameters_from_the_query(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        async with proxy.http.get(f"http://{proxy.address}/header?height=2") as response:
            answer = await response.json()
        assert (answer["id"], answer["result"]["header"]["height"]) == (-1, "2")
        async with proxy.http.get(f"http://{proxy.address}/net_info") as response:
            assert response.status == 500
            assert "E_UNPROVABLE" in (await response.json())["error"]["data"]
        async with proxy.http.get(f"http://{proxy.address}/nonsense") as response:
            assert (await response.json())["error"]["code"] == -32601
        async with proxy.http.get(f"http://{proxy.address}/") as response:
            assert "/abci_query?path=_&data=_&height=_&prove=_" in await response.text()


async def test_bodies_batches_and_garbage_are_bounded(node: ChainNode, tmp_path: Path) -> None:
    limits = ProxyLimits(body_bytes=2_000, batch_requests=3)
    async with proxy_before(node, tmp_path, limits=limits) as proxy:
        url = f"http://{proxy.address}/"
        async with proxy.http.post(url, data=b"x" * 3_000) as response:
            assert response.status == 413
        call = {"jsonrpc": "2.0", "id": 1, "method": "health"}
        async with proxy.http.post(url, json=[call] * 4) as response:
            assert "batch request exceeds maximum" in (await response.json())["error"]["data"]
        async with proxy.http.post(url, json=[call] * 3) as response:
            assert [one["result"] for one in await response.json()] == [{}, {}, {}]
        for body in (b"{", b"[" * 1_500, b'"text"', b"null"):
            async with proxy.http.post(url, data=body) as response:
                assert "error" in await response.json()
        async with proxy.http.post(url, json={"jsonrpc": "2.0", "method": "health"}) as response:
            assert await response.read() == b"", "a notification is dropped unheard"


async def test_a_body_that_drips_is_cut_off(node: ChainNode, tmp_path: Path) -> None:
    limits = ProxyLimits(read_timeout_s=0.3)
    async with proxy_before(node, tmp_path, limits=limits) as proxy:
        host, _, port = proxy.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST / HTTP/1.1\r\nHost: {proxy.address}\r\nAuthorization: Bearer {TOKEN}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(60):
            answer = await reader.read()  # until the proxy closes
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_token_that_is_no_text_is_a_wrong_token(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        host, _, port = proxy.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"GET /health HTTP/1.1\r\nHost: {proxy.address}\r\nConnection: close\r\n"
        writer.write(head.encode() + b"Authorization: Bearer \xff\xfe\r\n\r\n")
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401")
        writer.close()


async def test_a_call_that_cannot_be_proved_in_time_ends(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path, limits=ProxyLimits(call_timeout_s=0.3)) as proxy:
        tip = (await proxy.client.sync()).height
        # The header after the newest one proves its results; an idle chain does not make it for a long time.
        assert "within 0.3 s" in await proxy.refusal("block_results", height=str(tip))


async def test_our_light_client_follows_the_chain_through_the_proxy(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path / "proxy") as proxy:
        url = f"ws://{proxy.address}/websocket"
        source, witness = RpcSource(url, token=TOKEN), RpcSource(url, token=TOKEN)
        first = await source.signed_header(1)
        store = TrustStore(tmp_path / "light.db", node.chain_id)
        root = TrustOptions(1, first.header.hash())
        behind = LightClient(node.chain_id, root, store, source, [witness], clock=SystemClock())
        try:
            tip = await behind.sync()
            assert tip.hash() == (await proxy.client.sync()).hash()
            assert (await behind.verified_header(2)).height == 2
        finally:
            await behind.close()


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = read_or_make_token(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_or_make_token(file) == token
    assert token not in repr(ProxyDoor(token))
    file.chmod(0o640)
    with pytest.raises(UsageRefused, match="others can read it"):
        read_or_make_token(file)
    file.chmod(0o600)
    for bad in ("", "short", "x" * 600, "with spaces " * 5):
        file.write_text(bad)
        with pytest.raises(UsageRefused, match="holds no token"):
            read_or_make_token(file)
    with pytest.raises(UsageRefused, match="cannot be made"):
        read_or_make_token(tmp_path / "none" / "token")
    with pytest.raises(ValueError, match="characters"):
        ProxyDoor("")


async def test_json_travels_whole(node: ChainNode, tmp_path: Path) -> None:
    async with (
        proxy_before(node, tmp_path) as proxy,
        proxy.http.get(f"http://{proxy.address}/status") as response,
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(await response.text())["jsonrpc"] == "2.0"
