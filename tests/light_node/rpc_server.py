"""A websocket server that answers as CometBFT's JSON-RPC does, from a ChainSource, or as a test scripts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from dllm_protocol.block_json import (
    block_id_to_json,
    block_to_json,
    evidence_from_json,
    header_to_json,
    merkle_proof_to_json,
    signed_header_to_json,
    tx_result_to_json,
    validators_to_json,
)
from dllm_protocol.errors import DllmError
from dllm_protocol.json_shape import to_base64, to_hex
from light_node.answers import TxAnswer
from tests.light_node.signed_chain import ChainSource

Answer = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


class RpcFailure(DllmError):
    """An error that the server answers with."""


async def send_result(socket: ServerConnection, request: dict[str, Any], result: object) -> None:
    await socket.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}))


class ScriptedNode:
    """Answers from a ChainSource; `scripts` replace single methods."""

    def __init__(self, source: ChainSource) -> None:
        self.source = source
        self.scripts: dict[str, Answer] = {}
        self.authorisations: list[str | None] = []
        self.connections = 0
        self.calls: list[str] = []
        self._running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serve(self._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            yield f"ws://127.0.0.1:{port}/websocket"

    async def _serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        assert socket.request is not None
        self.authorisations.append(socket.request.headers.get("Authorization"))
        async for message in socket:
            task = asyncio.create_task(self._answer(socket, json.loads(message)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, socket: ServerConnection, request: dict[str, Any]) -> None:
        method = request["method"]
        self.calls.append(method)
        if method in self.scripts:
            await self.scripts[method](socket, request)
            return
        try:
            result = await self._result(method, request["params"])
        except DllmError as error:
            failure = {"code": -32603, "message": "Internal error", "data": error.message}
            await socket.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": failure}))
            return
        await send_result(socket, request, result)
        if method == "subscribe":
            header = self.source.chain.blocks[self.source.chain.height].header
            data = {
                "type": "tendermint/event/NewBlockHeader",
                "value": {"header": header_to_json(header)},
            }
            await send_result(socket, request, {"query": "q", "data": data, "events": {}})

    async def _result(self, method: str, params: dict[str, Any]) -> object:
        source, chain = self.source, self.source.chain
        height = int(params.get("height", 0))
        if method == "status":
            tip = chain.blocks[chain.height].header
            return {
                "node_info": {"network": chain.chain_id, "version": "0.38.25"},
                "sync_info": {
                    "latest_block_height": str(chain.height),
                    "latest_block_time": tip.time.to_rfc3339(),
                    "earliest_block_height": "1",
                    "catching_up": False,
                },
                "validator_info": {},
            }
        if method == "commit":
            signed = await source.signed_header(height or None)
            return {"signed_header": signed_header_to_json(signed), "canonical": True}
        if method == "validators":
            members = await source.validators(height)
            page, per_page = int(params["page"]), int(params["per_page"])
            shown = members.validators[(page - 1) * per_page : page * per_page]
            return validators_to_json(height, members, shown)
        if method == "block":
            block_id, block = await source.block(height)
            return {"block_id": block_id_to_json(block_id), "block": block_to_json(block)}
        return await self._result_of_app(method, params, height)

    async def _result_of_app(self, method: str, params: dict[str, Any], height: int) -> object:
        source = self.source
        if method == "block_results":
            results = await source.block_results(height)
            return {
                "height": str(height),
                "txs_results": [tx_result_to_json(one) for one in results] or None,
                "validator_updates": None,
            }
        if method == "abci_query":
            answer = await source.abci_query(
                params["path"], bytes.fromhex(params["data"]), height, prove=params["prove"]
            )
            op = {"type": "ics23:jmt", "key": to_base64(answer.key), "data": to_base64(answer.proof)}
            return {
                "response": {
                    "code": answer.code,
                    "log": answer.log,
                    "info": "",
                    "index": "0",
                    "key": to_base64(answer.key),
                    "value": to_base64(answer.value) or None,
                    "proofOps": {"ops": [op]} if answer.proof else None,
                    "height": str(answer.height),
                    "codespace": "",
                }
            }
        if method == "broadcast_tx_sync":
            sent = await source.broadcast_tx_sync(_base64(params["tx"]))
            return {
                "code": sent.code,
                "data": "",
                "log": sent.log,
                "codespace": "",
                "hash": to_hex(sent.hash),
            }
        if method == "broadcast_evidence":
            evidence = evidence_from_json(params["evidence"])
            return {"hash": to_base64(await source.broadcast_evidence(evidence))}
        if method == "tx":
            wanted = _base64(params["hash"])
            found = await source.tx(wanted)
            if found is None:
                raise RpcFailure(f"tx ({to_hex(wanted)}) not found")
            return _tx_to_json(found)
        if method in ("subscribe", "tx_search"):
            return {} if method == "subscribe" else {"txs": [], "total_count": "0"}
        raise RpcFailure(f"no method {method}")


def _base64(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def _tx_to_json(found: TxAnswer) -> object:
    assert found.proof is not None
    return {
        "hash": to_hex(found.hash),
        "height": str(found.height),
        "index": found.index,
        "tx_result": tx_result_to_json(found.result),
        "tx": to_base64(found.tx),
        "proof": {"root_hash": "", "data": to_base64(found.tx), "proof": merkle_proof_to_json(found.proof)},
    }
