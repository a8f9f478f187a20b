"""Hostile full nodes that lie about headers: each is refused, and the error names what disagrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dllm_protocol.block_json import validators_to_json
from dllm_protocol.json_shape import to_hex
from light_node.errors import HeaderRefused, RootMismatch
from tests.light_node.attacks import lunatic_fork
from tests.light_node.hostile.rig import client_of, node_of, twisted
from tests.light_node.signed_chain import SignedChain


@pytest.fixture
def chain() -> SignedChain:
    """Ten blocks by four validators."""
    made = SignedChain(("a", "b", "c", "d"))
    made.grow(10)
    return made


async def refusal_of(folder: Path, root: SignedChain, node: Any) -> HeaderRefused:
    """What a sync through this node is refused with; only the root stays in the store."""
    async with client_of(folder, root, node) as client:
        with pytest.raises(HeaderRefused) as caught:
            await client.sync()
        assert client.status().height == 1
        assert client.status().problem == caught.value.message
        return caught.value


async def test_a_forged_header(tmp_path: Path, chain: SignedChain) -> None:
    node = node_of(chain)

    def forge(result: Any, params: Any) -> None:
        if params.get("height") != "1":
            result["signed_header"]["header"]["app_hash"] = "07" * 32

    node.scripts["commit"] = twisted(node, forge)
    error = await refusal_of(tmp_path, chain, node)
    forged = lunatic_fork(chain, 10).blocks[10].hash()
    assert error.message == (
        f"commit block hash: claimed {to_hex(chain.blocks[10].hash())}, found {to_hex(forged)}"
    )


async def test_a_forged_header_with_a_commit_by_nobody(tmp_path: Path, chain: SignedChain) -> None:
    fork = chain.forked(10)
    fork.add(lie={"app_hash": b"\x07" * 32}, signing=("a",))
    error = await refusal_of(tmp_path, chain, node_of(fork))
    assert error.message == "header 10: power 10 of 40 signed, more than 26 needed"


async def test_an_old_validator_set(tmp_path: Path) -> None:
    chain = SignedChain(("a", "b", "c", "d"))
    chain.add(next_names=("a", "b", "c", "e"))
    chain.grow(9)
    node = node_of(chain)

    def stale(result: Any, params: Any) -> None:
        result.update(validators_to_json(int(params["height"]), chain.set_at(1)))

    node.scripts["validators"] = twisted(node, stale)
    error = await refusal_of_root(tmp_path, chain, node)
    assert to_hex(chain.set_at(3).hash()) in error.message
    assert to_hex(chain.set_at(1).hash()) in error.message


async def refusal_of_root(folder: Path, root: SignedChain, node: Any) -> HeaderRefused:
    async with client_of(folder, root, node) as client:
        with pytest.raises(HeaderRefused, match="those supplied hash to") as caught:
            await client.sync()
        return caught.value


async def test_another_chain(tmp_path: Path, chain: SignedChain) -> None:
    other = SignedChain(("a", "b", "c", "d"), "another-chain")
    other.blocks[1], other.commits[1] = chain.blocks[1], chain.commits[1]
    for height in (2, 3):
        other.validators[height] = chain.validators[height]
    other.states[1], other.results[1] = {}, ()
    other.grow(9)
    error = await refusal_of(tmp_path, chain, node_of(other))
    assert error.message == "header chain id: claimed another-chain, found signed-chain"


async def test_the_wrong_chain_at_the_root(tmp_path: Path, chain: SignedChain) -> None:
    other = SignedChain(("a", "b", "c", "d"), "another-chain")
    other.grow(10)
    async with client_of(tmp_path, chain, node_of(other)) as client:
        with pytest.raises(RootMismatch) as caught:
            await client.sync()
    assert chain.blocks[1].hash().hex() in caught.value.message
    assert other.blocks[1].hash().hex() in caught.value.message


async def test_a_time_in_the_future(tmp_path: Path, chain: SignedChain) -> None:
    late = chain.blocks[10].header.time.add_ms(60_000 + 10_000)
    fork = chain.forked(10)
    fork.add(lie={"time": late})
    error = await refusal_of(tmp_path, chain, node_of(fork))
    now = chain.blocks[10].header.time.add_ms(60_000)
    assert f"{late} is from the future: it is {now} here, 10 s of drift" in error.message
    just_in_time = chain.forked(10)
    just_in_time.add(lie={"time": late.add_ms(-1)})
    async with client_of(tmp_path / "again", chain, node_of(just_in_time)) as client:
        assert (await client.sync()).height == 10


async def test_a_time_that_does_not_grow(tmp_path: Path, chain: SignedChain) -> None:
    fork = chain.forked(10)
    fork.add(lie={"time": chain.blocks[1].header.time})
    error = await refusal_of(tmp_path, chain, node_of(fork))
    time = chain.blocks[1].header.time
    assert error.message == f"header 10 of {time} is not after the trusted {time}"


@pytest.mark.parametrize("kept", [1, 3])
async def test_a_truncated_commit(tmp_path: Path, chain: SignedChain, kept: int) -> None:
    node = node_of(chain)

    def cut(result: Any, params: Any) -> None:
        if params.get("height") != "1":
            commit = result["signed_header"]["commit"]
            commit["signatures"] = commit["signatures"][:kept]

    node.scripts["commit"] = twisted(node, cut)
    error = await refusal_of(tmp_path, chain, node)
    assert error.message == f"commit has {kept} signatures, the validator set has 4 members"


async def test_signatures_that_verify_for_nobody(tmp_path: Path, chain: SignedChain) -> None:
    node = node_of(chain)

    def spoil(result: Any, params: Any) -> None:
        if params.get("height") != "1":
            signatures = result["signed_header"]["commit"]["signatures"]
            for one in signatures[:2]:
                one["signature"] = signatures[3]["signature"]

    node.scripts["commit"] = twisted(node, spoil)
    error = await refusal_of(tmp_path, chain, node)
    assert error.message == "header 10: power 20 of 40 signed, more than 26 needed, 2 signatures refused"


async def test_one_validator_who_signs_for_all(tmp_path: Path, chain: SignedChain) -> None:
    node = node_of(chain)

    def copy(result: Any, params: Any) -> None:
        if params.get("height") != "1":
            signatures = result["signed_header"]["commit"]["signatures"]
            signatures[1:] = [signatures[0]] * 3

    node.scripts["commit"] = twisted(node, copy)
    error = await refusal_of(tmp_path, chain, node)
    address = to_hex(chain.set_at(10).validators[0].address)
    assert error.message == f"validator {address} signs twice, at 0 and at 1"
