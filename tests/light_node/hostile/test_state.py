"""Hostile full nodes that lie about the state: wrong key, wrong height, hidden values."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol import jmt
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.ics23_codec import encode_commitment_proof
from dllm_protocol.json_shape import to_base64
from light_node.errors import AnswerRefused
from light_node.queries import ProvedReads
from tests.dllm_protocol.reference_tree import reference_absence, reference_existence
from tests.light_node.hostile.rig import client_of, node_of, twisted
from tests.light_node.signed_chain import SignedChain

OURS, THEIRS = b"account/ours", b"account/theirs"


@pytest.fixture
def chain() -> SignedChain:
    """A chain whose accounts change at height 3 and at height 5."""
    made = SignedChain(("a", "b", "c"))
    made.grow(2)
    made.add(changes={OURS: b"7", THEIRS: b"9", b"account/other": b"1"})
    made.grow(1)
    made.add(changes={OURS: b"5"})
    made.grow(5)
    return made


@asynccontextmanager
async def reads(folder: Path, chain: SignedChain, change: Any) -> AsyncIterator[ProvedReads]:
    """Reads through a node whose answers about the state are changed."""
    node = node_of(chain)
    node.scripts["abci_query"] = twisted(node, change)
    async with client_of(folder, chain, node) as client:
        yield ProvedReads(client)


def _with_proof(response: dict[str, Any], proof: bytes) -> None:
    response["proofOps"]["ops"][0]["data"] = to_base64(proof)


async def test_nothing_is_refused_where_nothing_is_changed(tmp_path: Path, chain: SignedChain) -> None:
    async with reads(tmp_path, chain, lambda result, params: None) as honest:
        assert (await honest.read(OURS)).value == b"5"
        assert (await honest.read(OURS, 4)).value == b"7"
        assert (await honest.read(b"account/nobody")).value is None


async def test_a_proof_for_another_key(tmp_path: Path, chain: SignedChain) -> None:
    state = chain.states[9]
    proof = encode_commitment_proof(reference_existence(state, THEIRS))

    def named(result: Any, params: Any) -> None:
        result["response"].update(key=to_base64(THEIRS), value=to_base64(state[THEIRS]))
        _with_proof(result["response"], proof)

    async with reads(tmp_path / "1", chain, named) as client:
        with pytest.raises(AnswerRefused) as caught:
            await client.read(OURS, 9)
    assert caught.value.message == f"asked for key {OURS!r}, answered for {THEIRS!r}"

    def renamed(result: Any, params: Any) -> None:
        result["response"]["value"] = to_base64(state[THEIRS])
        _with_proof(result["response"], proof)

    async with reads(tmp_path / "2", chain, renamed) as client:
        with pytest.raises(VerificationFailed) as refused:
            await client.read(OURS, 9)
    assert refused.value.code == "E_PROOF"
    assert refused.value.message == f"the proof is for key {THEIRS!r}, asked was {OURS!r}"


async def test_a_proof_at_another_height(tmp_path: Path, chain: SignedChain) -> None:
    def earlier(result: Any, params: Any) -> None:
        response = result["response"]
        response["value"] = to_base64(chain.states[4][OURS])
        _with_proof(response, encode_commitment_proof(reference_existence(chain.states[4], OURS)))

    def earlier_and_honest(result: Any, params: Any) -> None:
        earlier(result, params)
        result["response"]["height"] = "4"

    async with reads(tmp_path / "1", chain, earlier_and_honest) as client:
        with pytest.raises(AnswerRefused) as caught:
            await client.read(OURS, 9)
    assert caught.value.message == "asked for the state at height 9, answered for 4"
    async with reads(tmp_path / "2", chain, earlier) as client:
        with pytest.raises(VerificationFailed) as refused:
            await client.read(OURS, 9)
    assert refused.value.code == "E_PROOF"
    for height in (5, 10):
        assert chain.blocks[height].header.app_hash.hex() in refused.value.message


async def test_absence_of_a_key_that_exists(tmp_path: Path, chain: SignedChain) -> None:
    state = chain.states[9]
    nobody = b"account/nobody"
    absence = encode_commitment_proof(reference_absence(state, nobody))

    def hidden(result: Any, params: Any) -> None:
        result["response"]["value"] = None

    def sold_as_absent(result: Any, params: Any) -> None:
        hidden(result, params)
        _with_proof(result["response"], absence)

    def without_the_key(result: Any, params: Any) -> None:
        hidden(result, params)
        others = {key: value for key, value in state.items() if key != OURS}
        _with_proof(result["response"], encode_commitment_proof(reference_absence(others, OURS)))

    pruned = jmt.root_of({key: value for key, value in state.items() if key != OURS}).hex()
    root = chain.blocks[10].header.app_hash.hex()
    for number, (lie, words) in enumerate(
        (
            (hidden, f"asked for a proof that {OURS!r} is absent, got a proof that it is present"),
            (sold_as_absent, f"the absence proof is for key {nobody!r}, asked was {OURS!r}"),
            (without_the_key, f"the proof leads to root {pruned}, the header has {root}"),
        )
    ):
        async with reads(tmp_path / str(number), chain, lie) as client:
            with pytest.raises(VerificationFailed) as refused:
                await client.read(OURS, 9)
            assert refused.value.code == "E_PROOF"
            assert refused.value.message == words


async def test_a_value_without_a_proof(tmp_path: Path, chain: SignedChain) -> None:
    def bare(result: Any, params: Any) -> None:
        assert base64.b64decode(result["response"]["value"]) == b"5"
        result["response"]["proofOps"] = None

    async with reads(tmp_path, chain, bare) as client:
        with pytest.raises(AnswerRefused, match="got a value of 1 bytes without one"):
            await client.read(OURS, 9)


async def test_who_lies_about_the_state_is_asked_no_more(tmp_path: Path, chain: SignedChain) -> None:
    def spoilt(result: Any, params: Any) -> None:
        result["response"]["value"] = to_base64(b"1000000")

    liar, one, two = node_of(chain), node_of(chain), node_of(chain)
    liar.scripts["abci_query"] = twisted(liar, spoilt)
    async with client_of(tmp_path, chain, liar, [one, two]) as client:
        lying = client.primary
        found = await ProvedReads(client).read(OURS)
        assert found.value == b"5"
        assert lying not in (client.primary, *client.witnesses)
        assert client.status().last_refusal == (
            f"the proof is for value {b'5'.hex()}, claimed was {b'1000000'.hex()}"
        )
