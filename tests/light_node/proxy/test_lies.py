"""Whatever a full node lies about, the proxy does not pass it on: it refuses, or leaves the untrue part out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol import state_keys
from dllm_protocol.block import tx_hash
from dllm_protocol.evidence_json import evidence_to_json
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.records import Account
from tests.e2e.lying_node import Hidden, Lie, Params
from tests.light_node.proxy.rig import ChainNode, proxy_before, send
from tests.vectors.record_consensus import made_chain, made_evidence

Change = Callable[[Any], object]


def lie(method: str, change: Change, height: int = 0) -> Lie:
    """Change the answers to a method (for one height)."""

    def answer(result: Any, params: Params) -> Any:
        if not height or int(params.get("height") or 0) == height:
            change(result)
        return result

    return Lie(method, answer=answer)


def _set(*path: str | int, to: object) -> Change:
    def change(result: Any) -> None:
        for step in path[:-1]:
            result = result[step]
        result[path[-1]] = to

    return change


FORGED = "AB" * 32


@pytest.mark.parametrize("field", ["app_hash", "data_hash", "time", "proposer_address", "last_results_hash"])
@pytest.mark.parametrize("method", ["header", "commit", "block", "blockchain"])
async def test_a_forged_header(node: ChainNode, tmp_path: Path, method: str, field: str) -> None:
    forged = {"time": "2026-01-01T00:00:00Z", "proposer_address": "AB" * 20}.get(field, FORGED)
    change = lie("commit", _set("signed_header", "header", field, to=forged), height=3)
    params = {"minHeight": "3", "maxHeight": "3"} if method == "blockchain" else {"height": "3"}
    async with proxy_before(node, tmp_path, change) as proxy:
        assert "E_HEADER" in await proxy.refusal(method, **params)
        assert await proxy.result("header", height="4"), "the rest of what it says is fine"


async def test_a_forged_signature_is_shown_as_absent_and_too_few_are_refused(
    node: ChainNode, tmp_path: Path
) -> None:
    forged = _set("signed_header", "commit", "signatures", 0, "signature", to=to_base64(b"\x01" * 64))
    async with proxy_before(node, tmp_path, lie("commit", forged, height=2)) as proxy:
        await proxy.result("status")
        assert "signed, more than" in await proxy.refusal("commit", height="2")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("txs", lambda result: result["block"]["data"]["txs"].clear()),
        ("round", lambda result: result["block"]["last_commit"].update(round=7)),
        ("signature", lambda result: result["block"]["last_commit"]["signatures"].clear()),
        ("header", lambda result: result["block"]["header"].update(app_hash=FORGED)),
    ],
)
@pytest.mark.parametrize("method", ["block", "blockchain"])
async def test_a_changed_block(
    node: ChainNode, tmp_path: Path, method: str, part: str, change: Change
) -> None:
    height = await _height_with_a_transaction(node, tmp_path / "honest")
    params = (
        {"minHeight": str(height), "maxHeight": str(height)}
        if method == "blockchain"
        else {"height": str(height)}
    )
    async with proxy_before(node, tmp_path, lie("block", change, height=height)) as proxy:
        words = await proxy.refusal(method, **params)
        assert words.startswith("E_BLOCK"), (part, words)


async def test_a_wrong_block_id_and_size_do_not_matter_because_they_are_worked_out_here(
    node: ChainNode, tmp_path: Path
) -> None:
    untrue = lie("block", _set("block_id", "parts", "hash", to=FORGED))
    async with proxy_before(node, tmp_path) as proxy:
        honest = await proxy.result("block", height="2")
    async with proxy_before(node, tmp_path, untrue) as proxy:
        assert await proxy.result("block", height="2") == honest


async def _height_with_a_transaction(node: ChainNode, folder: Path) -> int:
    async with proxy_before(node, folder) as proxy:
        return int((await proxy.result("tx", hash=to_base64(tx_hash(node.transfers[0]))))["height"])


async def test_another_block_under_a_hash(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path / "honest") as proxy:
        second = (await proxy.result("commit", height="2"))["signed_header"]["commit"]["block_id"]["hash"]
        third = (await proxy.result("commit", height="3"))["signed_header"]["commit"]["block_id"]["hash"]
    other = Lie("header_by_hash", ask=lambda params: params | {"hash": third})
    hidden = lie("header_by_hash", _set("header", to=None))
    for untrue, words in ((other, "claimed"), (hidden, "nothing proves")):
        async with proxy_before(node, tmp_path / words, untrue) as proxy:
            assert words in await proxy.refusal("header_by_hash", hash=second)
            assert words in await proxy.refusal("block_by_hash", hash=to_base64(bytes.fromhex(second)))


@pytest.mark.parametrize("field", ["code", "data", "gas_used"])
@pytest.mark.parametrize("method", ["block_results", "tx", "tx_search"])
async def test_a_changed_result(node: ChainNode, tmp_path: Path, method: str, field: str) -> None:
    height = await _height_with_a_transaction(node, tmp_path / "honest")
    untrue = {"code": 5, "data": to_base64(b"more"), "gas_used": "1"}[field]
    change = lie("block_results", _set("txs_results", 0, field, to=untrue))
    name = tx_hash(node.transfers[0])
    params = {
        "block_results": {"height": str(height)},
        "tx": {"hash": to_base64(name)},
        "tx_search": {"query": f"tx.hash='{to_hex(name)}'"},
    }[method]
    async with proxy_before(node, tmp_path, change) as proxy:
        assert "results of block" in await proxy.refusal(method, **params)


async def test_made_up_logs_events_and_validator_updates_stay_behind(node: ChainNode, tmp_path: Path) -> None:
    height = await _height_with_a_transaction(node, tmp_path / "honest")
    event = {"type": "transfer", "attributes": [{"key": "recipient", "value": "me", "index": True}]}

    def embellish(result: Any) -> None:
        result["txs_results"][0].update(log="you won", info="really", codespace="x", events=[event])
        result["validator_updates"] = [{"pub_key": {}, "power": "1000"}]

    async with proxy_before(node, tmp_path, lie("block_results", embellish)) as proxy:
        results = await proxy.result("block_results", height=str(height))
        (one,) = results["txs_results"]
        assert (one["log"], one["info"], one["codespace"], one["events"]) == ("", "", "", [])
        assert results["validator_updates"] is None


async def test_a_changed_validator_set(node: ChainNode, tmp_path: Path) -> None:
    power = lie("validators", _set("validators", 0, "voting_power", to="77"))
    async with proxy_before(node, tmp_path / "1") as proxy:
        await proxy.result("status")  # trust is there before the lie begins
    async with proxy_before(node, tmp_path / "1", power) as proxy:
        words = await proxy.refusal("validators", height="2")
        assert "validators" in words


async def test_priorities_are_shown_only_where_a_witness_agrees(node: ChainNode, tmp_path: Path) -> None:
    def raise_priority(result: Any) -> None:
        result["validators"][0]["proposer_priority"] = "12345"

    boast = lie("validators", raise_priority)
    async with proxy_before(node, tmp_path / "1", boast) as proxy:
        shown = await proxy.result("validators", height="2")
        assert shown["validators"][0]["proposer_priority"] == "0"
    async with proxy_before(node, tmp_path / "1", boast, witnesses=[node.websocket]) as proxy:
        assert "priorities" in await proxy.refusal("validators", height="2")


async def test_other_parameters_and_another_genesis_are_never_asked_for(
    node: ChainNode, tmp_path: Path
) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        honest = await proxy.result("consensus_params"), await proxy.result("genesis")

    def loosen(result: Any) -> None:
        result["consensus_params"]["evidence"]["max_age_num_blocks"] = "1"

    def rename(result: Any) -> None:
        result["genesis"]["chain_id"] = "local-00000000"

    untrue = (lie("consensus_params", loosen), lie("genesis", rename))
    async with proxy_before(node, tmp_path, *untrue) as proxy:
        assert (await proxy.result("consensus_params"), await proxy.result("genesis")) == honest


async def test_a_transaction_without_its_proof_or_with_anothers(node: ChainNode, tmp_path: Path) -> None:
    mine, other = (to_base64(tx_hash(raw)) for raw in node.transfers[:2])
    unproved = lie("tx", lambda result: result.pop("proof"))
    swapped = Lie("tx", ask=lambda params: params | {"hash": other})
    moved = lie("tx", lambda result: result.update(height="1"))
    elsewhere = lie("tx", lambda result: result.update(index=1))

    def say_nothing(result: Any, params: Params) -> Any:
        raise Hidden("tx not found")

    hidden = Lie("tx", answer=say_nothing)
    cases = (
        (unproved, "without proof"),
        (swapped, "asked"),
        (moved, "Merkle proof"),
        (elsewhere, "place of the transaction"),
        (hidden, "nothing proves it"),
    )
    for number, (untrue, words) in enumerate(cases):
        async with proxy_before(node, tmp_path / str(number), untrue) as proxy:
            assert words in await proxy.refusal("tx", hash=mine)


async def test_a_search_that_shows_what_was_not_asked_for(node: ChainNode, tmp_path: Path) -> None:
    everything = Lie("tx_search", ask=lambda params: params | {"query": "tx.height>=1"})
    async with proxy_before(node, tmp_path, everything) as proxy:
        stranger = b"\x42" * 20
        for query in (f"transfer.recipient='{stranger.hex()}'", "tx.height>=90000", f"tx.hash='{FORGED}'"):
            assert "does not fit" in await proxy.refusal("tx_search", query=query)
    boast = lie("tx_search", lambda result: result.update(total_count="1"))
    async with proxy_before(node, tmp_path, boast) as proxy:
        listed = await proxy.result("tx_search", query="tx.height>=1")
        assert int(listed["total_count"]) == len(listed["txs"])


async def test_the_state_changed_swapped_hidden_or_of_another_height(node: ChainNode, tmp_path: Path) -> None:
    mine = state_keys.account(node.sender.address)
    nobody = state_keys.account(b"\x99" * 20)
    rich = to_base64(Account(10**15, 1).encode())

    def of_mine(change: Change) -> Lie:
        def answer(result: Any, params: Params) -> Any:
            if bytes.fromhex(params["data"]) == mine:
                change(result["response"])
            return result

        return Lie("abci_query", answer=answer)

    absent = Lie(
        "abci_query",
        ask=lambda params: params | {"data": nobody.hex()},
        answer=lambda result, _: {"response": result["response"] | {"key": to_base64(mine)}},
    )
    cases = (
        (of_mine(lambda response: response.update(value=rich)), "E_PROOF"),
        (of_mine(lambda response: response.update(value=None)), "E_PROOF"),
        (of_mine(lambda response: response.update(proofOps=None)), "E_ANSWER"),
        (of_mine(lambda response: response.update(key=to_base64(nobody))), "E_ANSWER"),
        (of_mine(lambda response: response.update(height="1")), "E_ANSWER"),
        (Lie("abci_query", ask=lambda params: params | {"height": "1"}), "E_ANSWER"),
        (absent, "E_PROOF"),
    )
    for number, (untrue, code) in enumerate(cases):
        async with proxy_before(node, tmp_path / str(number), untrue) as proxy:
            words = await proxy.refusal("abci_query", path="/store", data=mine.hex(), prove=True)
            assert words.startswith(code), (number, words)


async def test_a_block_that_is_only_claimed_after_a_broadcast(node: ChainNode, tmp_path: Path) -> None:
    def early(result: Any) -> None:
        result["height"] = "2"
        result["tx_result"]["code"] = 0

    async with proxy_before(node, tmp_path, lie("broadcast_tx_commit", early)) as proxy:
        raw = node.sender.transfer(b"\x04" * 20, 8)
        assert "height of the transaction" in await proxy.refusal("broadcast_tx_commit", tx=to_base64(raw))
    renamed = lie("broadcast_tx_sync", _set("hash", to=FORGED))
    async with proxy_before(node, tmp_path, renamed) as proxy:
        raw = node.sender.transfer(b"\x04" * 20, 9)
        assert "hash of the transaction" in await proxy.refusal("broadcast_tx_sync", tx=to_base64(raw))
    await send(node)


async def test_evidence_that_the_node_took_under_another_name(node: ChainNode, tmp_path: Path) -> None:
    evidence = evidence_to_json(made_evidence(made_chain()))

    def taken_as(name: str) -> Lie:
        """The node answers as if it had taken the evidence, whatever it really says."""
        ask = {"height": "1"}
        return Lie(
            "broadcast_evidence", ask=lambda _: ask, becomes="header", answer=lambda *_: {"hash": name}
        )

    right = to_base64(made_evidence(made_chain()).hash())
    async with proxy_before(node, tmp_path, taken_as(right)) as proxy:
        assert await proxy.result("broadcast_evidence", evidence=evidence) == {"hash": right}
        assert "E_BLOCK" in await proxy.refusal("broadcast_evidence", evidence={"type": "x", "value": {}})
        assert "no evidence" in await proxy.refusal("broadcast_evidence")
    async with proxy_before(node, tmp_path, taken_as(to_base64(bytes(32)))) as proxy:
        assert "hash of the evidence" in await proxy.refusal("broadcast_evidence", evidence=evidence)


async def test_a_tip_that_does_not_exist(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path) as proxy:
        await proxy.result("status")
    future = lie("commit", _set("signed_header", "header", "height", to="100000"))
    async with proxy_before(node, tmp_path, future) as proxy:
        for method in ("status", "health", "header", "abci_info"):
            assert await proxy.refusal(method)
