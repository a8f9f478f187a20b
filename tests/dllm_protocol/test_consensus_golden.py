"""Our own recorded blocks, commits, sets and results: read from JSON, hashed again, compared."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from dllm_protocol.block import Block, PartSet, block_id_of
from dllm_protocol.block_json import (
    block_from_json,
    block_id_to_json,
    block_to_json,
    commit_from_json,
    evidence_from_json,
    evidence_to_json,
    tx_result_from_json,
    tx_result_to_json,
    validator_from_json,
)
from dllm_protocol.commit import BlockIDFlag, Commit
from dllm_protocol.header import Header
from dllm_protocol.results import last_results_hash
from dllm_protocol.validator_set import ValidatorSet
from tests.vectors.record_consensus import FILE, recorded

pytestmark = pytest.mark.conformance("own-golden-vectors")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """The recorded file."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_blocks_hash_to_what_was_recorded(golden: dict[str, Any]) -> None:
    assert len(golden["blocks"]) == 5
    assert [len(one["parts"]) for one in golden["blocks"]] == [1, 1, 2, 1, 1]
    for one in golden["blocks"]:
        block = block_from_json(one["block"])
        assert block_to_json(block) == one["block"]
        assert block_id_to_json(block_id_of(block)) == one["block_id"]
        assert sha256(block.encode()).hexdigest() == one["bytes_sha256"]
        assert [sha256(part).hexdigest() for part in PartSet.from_block(block).parts] == one["parts"]
        assert Header.decode(bytes.fromhex(one["header_hex"])) == block.header
        assert Block.decode(block.encode()) == block


def test_the_first_block_carries_an_empty_commit(golden: dict[str, Any]) -> None:
    first = block_from_json(golden["blocks"][0]["block"])
    assert first.last_commit == Commit.empty()
    assert first.encode().endswith(bytes.fromhex("22041a021200"))


def test_commits_and_their_sign_bytes(golden: dict[str, Any]) -> None:
    commit = commit_from_json(golden["commit"]["commit"])
    assert commit.hash().hex().upper() == golden["commit"]["hash"]
    assert commit.encode().hex() == golden["commit"]["bytes_hex"]
    assert Commit.decode(commit.encode()) == commit
    signed = [commit.sign_bytes(golden["chain_id"], index).hex() for index in range(4)]
    assert signed == golden["commit"]["sign_bytes_hex"]
    assert sorted(one.flag for one in commit.signatures) == [BlockIDFlag.ABSENT] + [BlockIDFlag.COMMIT] * 3


def test_validator_sets_and_their_proposers(golden: dict[str, Any]) -> None:
    for one in golden["validator_sets"]:
        members = ValidatorSet(tuple(validator_from_json(member) for member in one["validators"]))
        assert members.hash().hex().upper() == one["hash"]
        turning = ValidatorSet.genesis(members.validators)
        for proposer in one["proposers"]:
            assert turning.proposer.address.hex().upper() == proposer
            turning = turning.incremented(1)


def test_results(golden: dict[str, Any]) -> None:
    results = [tx_result_from_json(one) for one in golden["results"]["results"]]
    assert [tx_result_to_json(one) for one in results] == golden["results"]["results"]
    assert [one.encode_hashed().hex() for one in results] == golden["results"]["leaves_hex"]
    assert last_results_hash(results).hex().upper() == golden["results"]["hash"]


def test_evidence_of_an_attack(golden: dict[str, Any]) -> None:
    attack = evidence_from_json(golden["attack"]["evidence"])
    assert evidence_to_json(attack) == golden["attack"]["evidence"]
    assert attack.encode().hex() == golden["attack"]["bytes_hex"]
    assert attack.hash().hex().upper() == golden["attack"]["hash"]


def test_the_recorder_still_records_this(golden: dict[str, Any]) -> None:
    assert json.loads(json.dumps(recorded())) == golden
