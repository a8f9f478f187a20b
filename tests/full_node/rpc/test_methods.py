"""What the methods answer: CometBFT's shapes, true values, and proofs that hold."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from dllm_protocol.block import block_id_of, tx_hash, verify_tx
from dllm_protocol.block_json import (
    block_from_json,
    block_id_from_json,
    header_from_json,
    merkle_proof_from_json,
    signed_header_from_json,
    tx_result_from_json,
    validators_page_from_json,
)
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.ics23 import verify_membership, verify_non_membership
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.results import last_results_hash
from dllm_protocol.signing import verify
from dllm_protocol.validator_set import ValidatorSet
from full_node.consensus.solo import SoloSettings
from tests.full_node.doubles import note
from tests.full_node.rpc.harness import Served, served


async def _with_notes(node: Served) -> int:
    for raw in (note("a", 0, "x", "1"), note("b", 0, "y", "!"), note("a", 1, "z", "3")):
        answer = await node.result("broadcast_tx_commit", tx=to_base64(raw))
        assert answer["check_tx"]["code"] == 0
    return await node.settle()


async def test_status_and_the_like(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        height = await node.settle()
        assert await node.result("health") == {}
        status = await node.result("status")
        assert status["node_info"]["network"] == node.engine.chain_id
        assert status["node_info"]["protocol_version"] == {"p2p": "8", "block": "11", "app": "0"}
        assert status["sync_info"]["latest_block_height"] == str(height)
        assert status["sync_info"]["earliest_block_height"] == "1"
        assert status["sync_info"]["catching_up"] is False
        assert status["validator_info"]["voting_power"] == "10"
        assert (await node.result("net_info"))["n_peers"] == "0"
        info = (await node.result("abci_info"))["response"]
        assert info["last_block_height"] == str(height)
        assert base64.b64decode(info["last_block_app_hash"]) == node.engine.store.root


async def test_the_genesis_document_carries_the_record_that_names_the_chain(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        document = (await node.result("genesis"))["genesis"]
        record = Genesis.decode(base64.b64decode(document["app_state"]["genesis"]))
        assert chain_id_of(record) == document["chain_id"] == node.engine.chain_id
        assert document["initial_height"] == "1"
        chunk = await node.result("genesis_chunked", chunk="0")
        assert (chunk["chunk"], chunk["total"]) == ("0", "1")
        assert document["chain_id"].encode() in base64.b64decode(chunk["data"])
        assert "1 is invalid" in (await node.post("genesis_chunked", chunk=1))["error"]["data"]


async def test_a_light_client_can_follow_the_chain(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        latest = await _with_notes(node)
        before = None
        for height in range(1, latest + 1):
            answer = await node.result("commit", height=str(height))
            assert answer["canonical"] is (height < latest)
            signed = signed_header_from_json(answer["signed_header"])
            signed.validate_basic(node.engine.chain_id)
            page = await node.result("validators", height=str(height))
            _, members, total = validators_page_from_json(page)
            assert total == 1
            assert ValidatorSet(members).hash() == signed.header.validators_hash
            message = signed.commit.sign_bytes(node.engine.chain_id, 0)
            assert verify(members[0].public_key, message, signed.commit.signatures[0].signature)
            answer = await node.result("block", height=str(height))
            block = block_from_json(answer["block"])
            block.validate_basic()
            assert block_id_from_json(answer["block_id"]) == block_id_of(block) == signed.commit.block_id
            if before is not None:
                assert block.header.last_block_id == before.commit.block_id
                results = await node.result("block_results", height=str(height - 1))
                listed = [tx_result_from_json(one) for one in results["txs_results"] or []]
                assert block.header.last_results_hash == last_results_hash(listed)
                assert base64.b64decode(results["app_hash"]) == block.header.app_hash
            before = signed
        _, ahead, _ = validators_page_from_json(await node.result("validators", height=str(latest + 1)))
        assert ValidatorSet(ahead).hash() == node.engine.validators.hash()


async def test_headers_and_blocks_are_found_by_hash(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        height = await _with_notes(node)
        header = header_from_json((await node.result("header", height=height))["header"])
        assert (await node.result("header"))["header"]["height"] == str(height)
        by_hash = await node.result("header_by_hash", hash=to_hex(header.hash()))
        assert header_from_json(by_hash["header"]) == header
        block = await node.result("block_by_hash", hash=to_base64(header.hash()))
        assert block["block"]["header"]["height"] == str(height)
        assert (await node.result("header_by_hash", hash="00" * 32))["header"] is None
        nothing = await node.result("block_by_hash", hash=to_base64(bytes(32)))
        assert nothing == {"block_id": {"hash": "", "parts": {"total": 0, "hash": ""}}, "block": None}


async def test_blockchain_lists_headers_newest_first(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        height = await _with_notes(node)
        answer = await node.result("blockchain", minHeight="2", maxHeight="3")
        assert answer["last_height"] == str(height)
        assert [meta["header"]["height"] for meta in answer["block_metas"]] == ["3", "2"]
        assert answer["block_metas"][1]["num_txs"] == "1"
        assert len((await node.result("blockchain"))["block_metas"]) == height
        refused = await node.post("blockchain", minHeight=5, maxHeight=2)
        assert refused["error"]["data"] == "min height 5 can't be greater than max height 2"


async def test_values_are_proved_at_the_height_whose_root_a_header_has(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        latest = await _with_notes(node)
        for height in range(latest):
            header = header_from_json((await node.result("header", height=str(height + 1)))["header"])
            for key in (b"note/x", b"note/nothing", b"genesis"):
                answer = await node.result(
                    "abci_query", path="/store", data=key.hex(), height=str(height or 0), prove=True
                )
                response = answer["response"]
                if height == 0:
                    assert int(response["height"]) >= latest - 1  # a heartbeat may have come meanwhile
                    continue
                assert (response["code"], response["height"]) == (0, str(height))
                assert base64.b64decode(response["key"]) == key
                (op,) = response["proofOps"]["ops"]
                assert (op["type"], op["key"]) == ("ics23:jmt", response["key"])
                proof = base64.b64decode(op["data"])
                if response["value"] is None:
                    verify_non_membership(proof, header.app_hash, key)
                else:
                    verify_membership(proof, header.app_hash, key, base64.b64decode(response["value"]))
        newest = (await node.result("abci_query", path="/key", data=b"note/x".hex()))["response"]
        assert int(newest["height"]) >= latest - 1
        assert (newest["value"], newest["proofOps"]) == (to_base64(b"1"), None)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"path": "/store", "data": "aa", "height": "999", "prove": True}, "must be less than or equal to"),
        ({"path": "/store", "data": ""}, "1 to 4096 bytes"),
        ({"path": "/nowhere", "data": ""}, "nothing is served at '/nowhere'"),
    ],
)
async def test_queries_that_cannot_be_answered_say_why(
    tmp_path: Path, params: dict[str, object], words: str
) -> None:
    async with served(tmp_path) as node:
        await node.settle()
        response = (await node.result("abci_query", **params))["response"]
        assert response["code"] == 1
        assert words in response["log"]


async def test_the_application_answers_other_paths(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        response = (await node.result("abci_query", path="/echo", data="0102"))["response"]
        assert (response["code"], response["value"]) == (0, to_base64(b"\x01\x02"))


async def test_transactions_are_found_with_proof(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await _with_notes(node)
        raw = note("b", 0, "y", "!")
        found = await node.result("tx", hash=to_base64(tx_hash(raw)), prove=True)
        assert found["hash"] == to_hex(tx_hash(raw))
        assert (found["tx_result"]["code"], found["index"]) == (21, 0)
        header = header_from_json((await node.result("header", height=found["height"]))["header"])
        verify_tx(merkle_proof_from_json(found["proof"]["proof"]), header.data_hash, raw)
        assert found["proof"]["root_hash"] == to_hex(header.data_hash)
        assert "proof" not in await node.result("tx", hash=to_base64(tx_hash(raw)))
        missing = await node.post("tx", hash=to_base64(bytes(32)))
        assert missing["error"] == {
            "code": -32603,
            "message": "Internal error",
            "data": f"tx ({'0' * 64}) not found",
        }


async def test_transactions_are_searched_by_event_height_and_hash(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await _with_notes(node)
        everything = await node.result("tx_search", query="message.sender='a'", prove=True, order_by="desc")
        assert everything["total_count"] == "2"
        assert [one["tx"] for one in everything["txs"]] == [
            to_base64(note("a", 1, "z", "3")),
            to_base64(note("a", 0, "x", "1")),
        ]
        assert everything["txs"][0]["proof"]["proof"]["total"] == "1"
        height = everything["txs"][1]["height"]
        for query, count in (
            (f"tx.height={height}", "1"),
            (f"tx.height>{height} AND message.sender='a'", "1"),
            (f"tx.hash='{everything['txs'][0]['hash']}'", "1"),
            ("tm.event='Tx' AND message.sender='nobody'", "0"),
            ("tx.height>=0", "3"),
        ):
            assert (await node.result("tx_search", query=query))["total_count"] == count, query
        page = await node.result("tx_search", query="tx.height>0", page="2", per_page="2")
        assert (page["total_count"], len(page["txs"])) == ("3", 1)
        over = await node.post("tx_search", query="tx.height>0", page="9")
        assert over["error"]["data"] == "page should be within [1, 1] range, given 9"
        for bad in ("", "message.sender CONTAINS 'a'", "tx.hash='zz'", "tx.height='x'", "a='1' AND"):
            assert "error" in await node.post("tx_search", query=bad), bad


async def test_broadcasts_say_what_check_tx_said(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        raw = note("a", 0, "x", "1")
        answer = await node.result("broadcast_tx_sync", tx=to_base64(raw))
        assert answer == {"code": 0, "data": "", "log": "", "codespace": "", "hash": to_hex(tx_hash(raw))}
        again = await node.post("broadcast_tx_sync", tx=to_base64(raw))
        assert again["error"]["data"] == "tx already exists in cache"
        refused = await node.result("broadcast_tx_sync", tx=to_base64(b"nonsense"))
        assert (refused["code"], refused["codespace"]) == (2, "test")
        commit = await node.result("broadcast_tx_commit", tx=to_base64(b"nonsense"))
        assert (commit["check_tx"]["code"], commit["height"]) == (2, "0")
        assert (await node.post("broadcast_tx_sync"))["error"]["data"] == "tx is empty"


async def test_async_broadcasts_answer_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        raw = note("a", 0, "x", "1")
        blocks = node.engine.events.subscribe()
        answer = await node.result("broadcast_tx_async", tx=to_base64(raw))
        assert answer["hash"] == to_hex(tx_hash(raw))
        assert (await node.result("broadcast_tx_async", tx=to_base64(b"nonsense")))["code"] == 0
        while (made := await asyncio.wait_for(blocks.next(), 60)) is not None and raw not in made.block.txs:
            pass
        assert node.engine.store.blocks.find_tx(tx_hash(raw)) is not None


async def test_what_waits_is_shown(tmp_path: Path) -> None:
    async with served(tmp_path, settings=SoloSettings(gather_ms=60_000)) as node:
        await node.settle()
        raws = [note("a", n, "k", "v") for n in range(3)]
        for raw in raws:
            await node.result("broadcast_tx_sync", tx=to_base64(raw))
        shown = await node.result("unconfirmed_txs", limit="2")
        assert (shown["n_txs"], shown["total"]) == ("2", "3")
        assert shown["txs"] == [to_base64(raw) for raw in raws[:2]]
        counted = await node.result("num_unconfirmed_txs")
        assert (counted["n_txs"], counted["total_bytes"], counted["txs"]) == (
            "3",
            str(sum(map(len, raws))),
            None,
        )
        looked = await node.result("check_tx", tx=to_base64(note("a", 3, "k", "v")))
        assert looked["code"] == 0
        assert (await node.result("num_unconfirmed_txs"))["n_txs"] == "3"


async def test_heights_outside_the_chain_are_refused_in_cometbfts_words(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        latest = await node.settle()
        for method in ("header", "commit", "block", "block_results"):
            over = await node.post(method, height=str(latest + 1))
            assert over["error"]["data"] == (
                f"height {latest + 1} must be less than or equal to the current blockchain height {latest}"
            )
            under = await node.post(method, height="-1")
            assert under["error"]["data"] == "height must be greater than 0, but got -1"


async def test_consensus_params_are_those_that_headers_commit_to(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        latest = await node.settle()
        answer = await node.result("consensus_params")
        assert answer["block_height"] == str(latest + 1)
        assert answer["consensus_params"]["block"]["max_bytes"] == str(
            node.engine.params.block.block_max_bytes
        )
