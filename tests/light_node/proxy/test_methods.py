"""An honest node behind the proxy: its answers come out as a full node's, less what nothing proves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dllm_protocol import state_keys
from dllm_protocol.block import block_id_of, tx_hash, verify_tx
from dllm_protocol.block_json import (
    block_from_json,
    block_id_from_json,
    header_from_json,
    merkle_proof_from_json,
    signed_header_from_json,
    validators_page_from_json,
)
from dllm_protocol.ics23 import verify_membership, verify_non_membership
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.records import Account
from light_node.proxy.methods import METHODS, REFUSED
from light_node.proxy.methods.transactions import UNPROVED
from tests.light_node.proxy.rig import ChainNode, proxy_before, send

ENGINES = ("solo", "cometbft")


async def test_headers_commits_blocks_and_validators_are_those_of_the_chain(
    node: ChainNode, tmp_path: Path
) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        status = await proxy.result("status")
        assert status["node_info"]["network"] == node.chain_id
        tip = int(status["sync_info"]["latest_block_height"])
        assert tip >= 4
        assert await proxy.result("health") == {}
        above = None
        for height in range(tip, 0, -1):
            header = header_from_json((await proxy.result("header", height=str(height)))["header"])
            signed = signed_header_from_json(
                (await proxy.result("commit", height=str(height)))["signed_header"]
            )
            assert signed.header == header
            signed.validate_basic(node.chain_id)
            shown = await proxy.result("block", height=str(height))
            block = block_from_json(shown["block"])
            assert block.header == header
            assert block_id_from_json(shown["block_id"]) == block_id_of(block)
            page = await proxy.result("validators", height=str(height))
            assert validators_page_from_json(page)[0] == height
            assert (
                header_from_json((await proxy.result("header_by_hash", hash=to_hex(header.hash())))["header"])
                == header
            )
            found = await proxy.result("block_by_hash", hash=to_base64(header.hash()))
            assert found["block"] == shown["block"]
            assert above is None or above.last_block_id.hash == header.hash()
            above = header


async def test_ranges_results_parameters_and_genesis(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        chain = await proxy.result("blockchain", minHeight="1", maxHeight="4")
        assert [one["header"]["height"] for one in chain["block_metas"]] == ["4", "3", "2", "1"]
        counted = {one["header"]["height"]: int(one["num_txs"]) for one in chain["block_metas"]}
        for height, count in counted.items():
            results = await proxy.result("block_results", height=height)
            assert len(results["txs_results"] or []) == count
            assert results["validator_updates"] is None
            for one in results["txs_results"] or []:
                assert (one["code"], one["events"], one["log"]) == (0, [], "")
        newest = await proxy.result("block_results")
        info = (await proxy.result("abci_info"))["response"]
        assert (newest["height"], newest["app_hash"]) == (
            info["last_block_height"],
            info["last_block_app_hash"],
        )
        params = await proxy.result("consensus_params")
        document = (await proxy.result("genesis"))["genesis"]
        assert document["chain_id"] == node.chain_id
        assert document["consensus_params"] == params["consensus_params"]
        chunk = await proxy.result("genesis_chunked", chunk="0")
        assert chunk["total"] == "1"


async def test_what_the_proxy_says_of_the_chain_is_what_the_node_says(
    node: ChainNode, tmp_path: Path
) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        for method, params in (
            ("header", {"height": "2"}),
            ("commit", {"height": "2"}),
            ("block", {"height": "2"}),
            ("blockchain", {"minHeight": "2", "maxHeight": "3"}),
            ("consensus_params", {"height": "2"}),
            ("genesis", {}),
        ):
            theirs = await _of_node(proxy.http, node, method, params)
            ours = await proxy.result(method, **params)
            theirs.pop("last_height", None)
            ours.pop("last_height", None)
            assert ours == theirs, method


async def _of_node(http: Any, node: ChainNode, method: str, params: dict[str, str]) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with http.post(node.url, json=body) as response:
        return (await response.json())["result"]


async def test_transactions_come_with_their_proof(node: ChainNode, tmp_path: Path) -> None:
    raw = node.transfers[0]
    async with proxy_before(node, tmp_path) as proxy:
        found = await proxy.result("tx", hash=to_base64(tx_hash(raw)), prove=True)
        header = header_from_json((await proxy.result("header", height=found["height"]))["header"])
        assert found["proof"]["root_hash"] == to_hex(header.data_hash)
        verify_tx(merkle_proof_from_json(found["proof"]["proof"]), header.data_hash, raw)
        assert found["tx_result"]["code"] == 0
        assert "proof" not in await proxy.result("tx", hash=to_base64(tx_hash(raw)))
        payer = node.sender.address.hex()
        listed = await proxy.result(
            "tx_search", query=f"fee.account='{payer}'", order_by="desc", per_page="2"
        )
        assert len(listed["txs"]) == 2
        assert int(listed["total_count"]) >= 3
        heights = [int(one["height"]) for one in listed["txs"]]
        assert heights == sorted(heights, reverse=True)
        by_hash = await proxy.result("tx_search", query=f"tx.hash='{to_hex(tx_hash(raw))}'")
        assert [one["hash"] for one in by_hash["txs"]] == [to_hex(tx_hash(raw))]


async def test_the_state_is_proved_present_and_absent(node: ChainNode, tmp_path: Path) -> None:
    mine = state_keys.account(node.sender.address)
    nobody = state_keys.account(b"\x99" * 20)
    async with proxy_before(node, tmp_path) as proxy:
        for key in (mine, nobody):
            answer = await proxy.result("abci_query", path="/store", data=key.hex(), prove=True)
            response = answer["response"]
            header = header_from_json(
                (await proxy.result("header", height=str(int(response["height"]) + 1)))["header"]
            )
            proof = _bytes(response["proofOps"]["ops"][0]["data"])
            if key == mine:
                value = _bytes(response["value"])
                verify_membership(proof, header.app_hash, key, value)
                assert Account.decode(value).sequence >= 3
            else:
                assert response["value"] is None
                verify_non_membership(proof, header.app_hash, key)
        plain = (await proxy.result("abci_query", path="/key", data=mine.hex(), height="2"))["response"]
        assert (plain["height"], plain["proofOps"]) == ("2", None)


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text, validate=True)


async def test_what_a_mempool_says_is_marked_and_what_a_block_carries_is_proved(
    node: ChainNode, tmp_path: Path
) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        raw = node.sender.transfer(b"\x03" * 20, 6)
        done = await proxy.result("broadcast_tx_commit", tx=to_base64(raw))
        assert done["check_tx"]["log"].startswith(UNPROVED)
        assert int(done["height"]) > 1
        assert (done["tx_result"]["code"], done["hash"]) == (0, to_hex(tx_hash(raw)))
        again = await proxy.result("broadcast_tx_sync", tx=to_base64(raw[:-1] + bytes([raw[-1] ^ 1])))
        assert again["code"] != 0
        assert again["log"].startswith(UNPROVED)
        await send(node)


@pytest.mark.parametrize("method", sorted(REFUSED))
async def test_what_nothing_proves_is_refused_with_the_reason(
    node: ChainNode, tmp_path: Path, method: str
) -> None:
    assert method not in METHODS
    async with proxy_before(node, tmp_path) as proxy:
        words = await proxy.refusal(method)
        assert words.startswith("E_UNPROVABLE: ")
        assert REFUSED[method] in words


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("abci_query", {"path": "/offers", "data": "00"}, "proved by nothing"),
        ("abci_query", {"path": "/store", "data": ""}, "a key has 1 to"),
        ("tx_search", {"query": "rated.model='guide'"}, "rated.model"),
        ("tx_search", {"query": "tx.hash="}, "failed to parse query"),
        ("tx", {"hash": to_base64(bytes(32))}, "nothing proves it"),
        ("header_by_hash", {"hash": "00" * 32}, "nothing proves"),
        ("header", {"height": "100000"}, "must be less than or equal to"),
        ("header", {"height": "-1"}, "must be greater than 0"),
        ("header", {"height": "one"}, "not a 64-bit integer"),
    ],
)
async def test_questions_without_a_provable_answer(
    node: ChainNode, tmp_path: Path, method: str, params: dict[str, str], words: str
) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        assert words in await proxy.refusal(method, **params)
