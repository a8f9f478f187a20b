"""RPC JSON of consensus objects: both directions, strict."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.block import Block, tx_proof
from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.block_json import (
    block_from_json,
    block_to_json,
    commit_from_json,
    evidence_from_json,
    evidence_to_json,
    header_from_json,
    header_to_json,
    merkle_proof_from_json,
    merkle_proof_to_json,
    signed_header_from_json,
    signed_header_to_json,
    tx_result_from_json,
    validator_from_json,
    validator_to_json,
    validators_page_from_json,
    validators_to_json,
)
from dllm_protocol.errors import MalformedBytes
from tests.light_node.signed_chain import SignedChain
from tests.vectors.record_consensus import made_chain, made_evidence

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
READERS: list[Callable[[object], object]] = [
    header_from_json,
    commit_from_json,
    signed_header_from_json,
    block_from_json,
    validator_from_json,
    validators_page_from_json,
    evidence_from_json,
    tx_result_from_json,
    merkle_proof_from_json,
]


@pytest.fixture(scope="module")
def chain() -> SignedChain:
    """A chain with everything in it."""
    return made_chain()


def test_everything_leads_back(chain: SignedChain) -> None:
    evidence = made_evidence(chain)
    block = Block(chain.blocks[5].header, (b"", b"tx"), (evidence,), chain.commits[4])
    assert block_from_json(json.loads(json.dumps(block_to_json(block)))) == block
    signed = chain.signed_header(4)
    assert signed_header_from_json(signed_header_to_json(signed)) == signed
    assert evidence_from_json(evidence_to_json(evidence)) == evidence
    members = chain.set_at(4)
    for one in members.validators:
        assert validator_from_json(validator_to_json(one)) == one
    page = validators_to_json(4, members, members.validators[1:3])
    assert validators_page_from_json(page) == (4, members.validators[1:3], 4)
    proof = tx_proof([b"a", b"b", b"c"], 2)
    assert merkle_proof_from_json(merkle_proof_to_json(proof)) == proof


def test_go_s_spellings(chain: SignedChain) -> None:
    header = header_to_json(chain.blocks[2].header)
    assert header["version"] == {"block": "11"}
    assert header["height"] == "2"
    assert header["time"] == "2026-01-01T00:00:01.001Z"
    assert header["last_block_id"]["parts"]["total"] == 1
    absent = next(
        one
        for one in signed_header_to_json(chain.signed_header(4))["commit"]["signatures"]
        if one["block_id_flag"] == 1
    )
    assert absent["signature"] is None
    assert absent["timestamp"] == "0001-01-01T00:00:00Z"
    assert header_from_json(header | {"version": {"block": "11", "app": "7"}}).app_version == 7


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("header", "height"), 2),
        (("header", "height"), "02"),
        (("header", "height"), "+2"),
        (("header", "height"), "2.0"),
        (("header", "height"), "9223372036854775808"),
        (("header", "app_hash"), "ab"),
        (("header", "app_hash"), "ABC"),
        (("header", "chain_id"), None),
        (("header", "chain_id"), "x" * 51),
        (("header", "time"), "yesterday"),
        (("header", "proposer_address"), "AB"),
        (("header", "extra"), "key"),
        (("header", "last_block_id", "parts", "total"), "1"),
        (("header", "last_block_id", "parts", "total"), True),
        (("header", "last_block_id", "hash"), "AB"),
        (("commit", "round"), "0"),
        (("commit", "round"), -1),
        (("commit", "signatures"), {}),
        (("commit", "signatures", 0, "block_id_flag"), 4),
        (("commit", "signatures", 0, "signature"), "!!!"),
        (("commit", "signatures", 0, "signature"), "AA==\n"),
        (("commit", "signatures", 0, "signature"), "AB=="),
    ],
)
def test_other_spellings_are_refused(chain: SignedChain, path: tuple[Any, ...], value: object) -> None:
    written = copy.deepcopy(signed_header_to_json(chain.signed_header(3)))
    inner = written
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(MalformedBlock):
        signed_header_from_json(written)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


@given(st.data())
def test_a_block_with_anything_in_any_place_raises_only_declared_errors(data: st.DataObject) -> None:
    made = made_chain()
    block = Block(made.blocks[4].header, (b"tx",), (made_evidence(made),), made.commits[3])
    written = block_to_json(block)
    places = list(_places(written))
    holder, key = data.draw(st.sampled_from(range(len(places))).map(lambda at: places[at]))
    holder[key] = data.draw(JSON_VALUES)
    try:
        found = block_from_json(written)
    except MalformedBytes:
        return
    assert isinstance(found, Block)


@given(JSON_VALUES)
def test_anything_at_all_raises_only_declared_errors(value: object) -> None:
    for read in READERS:
        with pytest.raises(MalformedBytes):
            read(value)


def test_a_validator_with_another_s_address_is_refused(chain: SignedChain) -> None:
    first, second = chain.set_at(1).validators[:2]
    written = validator_to_json(first) | {"address": second.address.hex().upper()}
    with pytest.raises(MalformedBlock, match="is not that of its key"):
        validator_from_json(written)
    written = validator_to_json(first)
    written["pub_key"]["type"] = "tendermint/PubKeySecp256k1"
    with pytest.raises(MalformedBlock, match="Secp256k1"):
        validator_from_json(written)
