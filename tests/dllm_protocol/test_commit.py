"""Commits: Go's sign bytes, strict bytes, rules, BFT time."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import message_field, varint_field
from dllm_protocol.commit import (
    ZERO_BLOCK_ID,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    PartSetHeader,
    VoteType,
    median_time,
    vote_sign_bytes,
)
from dllm_protocol.timestamp import GO_ZERO_TIME, Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet

BLOCK_ID = BlockID(sha256(b"block").digest(), PartSetHeader(1, sha256(b"parts").digest()))


def _validators(powers: list[int]) -> ValidatorSet:
    return ValidatorSet(
        tuple(Validator(sha256(bytes([n])).digest(), power) for n, power in enumerate(powers))
    )


def _entry(address: bytes, seconds: int, flag: BlockIDFlag = BlockIDFlag.COMMIT) -> CommitSig:
    return CommitSig(flag, address, Timestamp(seconds), b"\x01" * 64)


@pytest.mark.conformance("cometbft-go-tests")
@pytest.mark.parametrize("number", range(6))
def test_go_s_sign_bytes(shared_vectors: Path, number: int) -> None:
    table = json.loads((shared_vectors / "cometbft-go-tests" / "vote_sign_bytes.json").read_text())
    assert len(table["vectors"]) == 6
    vector = table["vectors"][number]
    found = vote_sign_bytes(
        vector["chain_id"],
        vector["type"],
        vector["height"],
        vector["round"],
        ZERO_BLOCK_ID,
        Timestamp.from_rfc3339(vector["timestamp"]),
    )
    assert found.hex() == vector["want"], vector["name"]


def test_known_bytes() -> None:
    assert CommitSig.absent().encode().hex() == "08011a0b088092b8c398feffffff01"
    assert ZERO_BLOCK_ID.encode().hex() == "1200"
    assert Commit.empty().encode().hex() == "1a021200"
    assert Commit.empty().hash() == sha256(b"").digest()
    assert ZERO_BLOCK_ID.is_zero
    assert not BLOCK_ID.is_zero


def test_a_nil_vote_signs_no_block() -> None:
    address = bytes(20)
    commit = Commit(7, 1, BLOCK_ID, (_entry(address, 5), _entry(address, 5, BlockIDFlag.NIL)))
    for_block, for_nil = commit.sign_bytes("chain", 0), commit.sign_bytes("chain", 1)
    assert BLOCK_ID.hash in for_block
    assert BLOCK_ID.hash not in for_nil
    assert for_nil == vote_sign_bytes("chain", VoteType.PRECOMMIT, 7, 1, ZERO_BLOCK_ID, Timestamp(5))


def test_bytes_lead_back() -> None:
    commit = Commit(7, 1, BLOCK_ID, (_entry(bytes(20), 5), CommitSig.absent()))
    assert Commit.decode(commit.encode()) == commit


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a\x02\x12\x00\x1a\x02\x12\x00",
        b"\x08\x00\x1a\x02\x12\x00",
        b"\x1a\x02\x12\x00\x08\x01",
        b"\x1a\x02\x12\x00\x28\x01",
        b"\x08\x81\x00\x1a\x02\x12\x00",
        b"\x0a\x00",
        b"\x08\x01",
        b"\x1a\x05\x12\x00",
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedBlock):
        Commit.decode(data)


def test_an_unknown_flag_is_refused() -> None:
    entry = varint_field(1, 4) + message_field(3, GO_ZERO_TIME.encode())
    with pytest.raises(MalformedBlock, match="flag 4"):
        CommitSig.decode(entry)


def test_rules_of_a_commit() -> None:
    entry = _entry(bytes(20), 5)
    good = Commit(7, 0, BLOCK_ID, (entry, CommitSig.absent()))
    good.validate_basic()
    Commit.empty().validate_basic()
    for bad, words in (
        (replace(good, height=-1), "height -1"),
        (replace(good, round=-1), "round -1"),
        (replace(good, block_id=ZERO_BLOCK_ID), "for no block"),
        (replace(good, block_id=BlockID(b"short", BLOCK_ID.part_set_header)), "5 bytes"),
        (replace(good, signatures=()), "no signatures"),
        (replace(good, signatures=(replace(CommitSig.absent(), timestamp=Timestamp(0)),)), "carries data"),
        (replace(good, signatures=(replace(entry, validator_address=b""),)), "0 bytes, not 20"),
        (replace(good, signatures=(replace(entry, signature=b""),)), "0 bytes, not 1 to 64"),
        (replace(good, signatures=(replace(entry, signature=bytes(65)),)), "65 bytes"),
    ):
        with pytest.raises(InvalidBlock, match=words):
            bad.validate_basic()


def test_time_is_the_weighted_median() -> None:
    members = _validators([30, 20, 10])
    first, second, third = (one.address for one in members.validators)
    commit = Commit(7, 0, BLOCK_ID, (_entry(first, 50), _entry(second, 10), _entry(third, 90)))
    assert median_time(commit, members) == Timestamp(50)
    nil_counts = Commit(
        7, 0, BLOCK_ID, (CommitSig.absent(), _entry(second, 10, BlockIDFlag.NIL), _entry(third, 90))
    )
    assert median_time(nil_counts, members) == Timestamp(10)
    alone = Commit(7, 0, BLOCK_ID, (_entry(third, 90),))
    assert median_time(alone, members) == Timestamp(90)


def test_time_of_strangers_or_nobody_is_refused() -> None:
    members = _validators([30])
    with pytest.raises(InvalidBlock, match="not in the validator set"):
        median_time(Commit(7, 0, BLOCK_ID, (_entry(bytes(20), 5),)), members)
    with pytest.raises(InvalidBlock, match="no signature to take the time from"):
        median_time(Commit(7, 0, BLOCK_ID, (CommitSig.absent(),)), members)
