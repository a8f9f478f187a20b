"""The server: JSON-RPC's rules, GET, limits, and who is let in."""

from __future__ import annotations

from pathlib import Path

import pytest

from full_node.rpc.guard import Door, RpcLimits
from tests.full_node.rpc.harness import served

CALL = {"jsonrpc": "2.0", "id": 7, "method": "health", "params": {}}


async def test_ids_come_back_and_batches_keep_their_order(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        assert await node.raw(CALL) == {"jsonrpc": "2.0", "id": 7, "result": {}}
        batch = [{**CALL, "id": "b"}, {**CALL, "id": 1, "method": "nothing"}, {**CALL, "id": None}]
        answers = await node.raw(batch)
        assert [one["id"] for one in answers] == ["b", 1, None]
        assert answers[1]["error"] == {"code": -32601, "message": "Method not found"}


async def test_notifications_get_no_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as node, node.http.post(node.url, json={"method": "health"}) as response:
        assert response.status == 200
        assert await response.read() == b""


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"{", 500, -32700, "Parse error. Invalid JSON"),
        (b"[" * 100_000, 500, -32700, "Parse error. Invalid JSON"),
        (b"5", 200, -32600, "Invalid Request"),
        (b'{"id":{},"method":"health"}', 200, -32600, "Invalid Request"),
        (b'{"id":true,"method":"health"}', 200, -32600, "Invalid Request"),
        (b'{"id":1,"method":5}', 200, -32600, "Invalid Request"),
        (b'{"id":1,"method":"subscribe","params":{"query":"x"}}', 200, -32601, "Method not found"),
        (b'{"id":1,"method":"header","params":["1","2"]}', 200, -32602, "Invalid params"),
        (b'{"id":1,"method":"header","params":"x"}', 200, -32602, "Invalid params"),
        (b'{"id":1,"method":"header","params":{"height":"x"}}', 200, -32602, "Invalid params"),
        (
            b'{"id":1,"method":"header","params":{"height":"99999999999999999999"}}',
            200,
            -32602,
            "Invalid params",
        ),
        (b'{"id":1,"method":"header","params":{"height":true}}', 200, -32602, "Invalid params"),
        (b'{"id":1,"method":"tx","params":{"hash":"?"}}', 200, -32602, "Invalid params"),
        (b'{"id":1,"method":"abci_query","params":{"data":"zz"}}', 200, -32602, "Invalid params"),
    ],
)
async def test_errors_have_cometbfts_numbers_and_words(
    tmp_path: Path, body: bytes, status: int, code: int, message: str
) -> None:
    async with served(tmp_path) as node:
        error = (await node.raw(body, status))["error"]
        assert (error["code"], error["message"]) == (code, message)


async def test_parameters_come_by_name_by_place_and_in_the_query_string(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await node.settle()
        by_place = await node.raw({**CALL, "method": "header", "params": ["1"]})
        by_number = await node.raw({**CALL, "method": "header", "params": {"height": 1}})
        by_get = await node.get("header?height=1")
        by_quoted = await node.get('header?height="1"')
        assert by_get["id"] == -1
        assert by_place["result"] == by_number["result"] == by_get["result"] == by_quoted["result"]
        key = b"genesis".hex()
        first = await node.get(f'abci_query?path="/store"&data=0x{key}&prove=true')
        second = await node.get('abci_query?path="/store"&data="genesis"&prove=true')
        assert first["result"] == second["result"]
        assert first["result"]["response"]["proofOps"] is not None
        sent = await node.get('broadcast_tx_sync?tx="a|0|k=v"')
        assert sent["result"]["code"] == 0


async def test_wrong_gets_are_told_so(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        assert (await node.get("nothing", 404))["error"]["code"] == -32601
        for path in ("header?height=x", "tx?hash=abc", "tx?hash=0xzz", 'abci_query?prove="maybe"'):
            assert (await node.get(path, 500))["error"]["code"] == -32602
        assert (await node.get("header?height=99", 500))["error"]["code"] == -32603
        async with node.http.get(node.url) as response:
            assert "/abci_query?path=_&data=_&height=_&prove=_" in await response.text()


async def test_bodies_and_batches_are_bounded(tmp_path: Path) -> None:
    limits = RpcLimits(body_bytes=2000, batch_requests=3)
    async with served(tmp_path, limits=limits) as node:
        too_many = await node.raw([CALL] * 4, 500)
        assert too_many["error"]["data"] == "batch request exceeds maximum (4 > 3)"
        too_long = await node.raw(b" " * 2001, 413)
        assert "more than 2000 bytes" in too_long["error"]["data"]
        assert len(await node.raw([CALL] * 3)) == 3


async def test_a_body_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    import asyncio

    async with served(tmp_path, limits=RpcLimits(read_timeout_s=0.05)) as node:
        host, port = node.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


async def test_connections_are_bounded(tmp_path: Path) -> None:
    import aiohttp

    limits = RpcLimits(connections=2)
    async with served(tmp_path, limits=limits) as node:
        async with aiohttp.ClientSession() as other:
            first = await other.ws_connect(f"{node.url}/websocket")
            second = await other.ws_connect(f"{node.url}/websocket")
            async with node.http.post(node.url, json=CALL) as response:
                assert response.status == 503
            await first.close()
            await second.close()
        assert await node.raw(CALL) == {"jsonrpc": "2.0", "id": 7, "result": {}}


async def test_foreign_hosts_and_pages_are_refused(tmp_path: Path) -> None:
    door = Door(origins=frozenset({"http://localhost:3000"}))
    async with served(tmp_path, door=door) as node:
        for headers, status in (
            ({"Host": "evil.example"}, 403),
            ({"Host": "[broken"}, 403),
            ({"Host": "localhost:1"}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://localhost:3000"}, 200),
        ):
            async with node.http.post(node.url, json=CALL, headers=headers) as response:
                assert response.status == status, headers


async def test_a_token_is_asked_for_when_set(tmp_path: Path) -> None:
    door = Door(token="secret-token")
    assert "secret" not in repr(door)
    async with served(tmp_path, door=door) as node:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer secret-token"}, 200),
        ):
            async with node.http.post(node.url, json=CALL, headers=headers) as response:
                assert response.status == status
