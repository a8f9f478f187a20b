"""Requests as a real CometBFT sent them, and what none ever sends."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.comet_wire import bytes_field, message_field, varint_field
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.genesis import chain_id_of
from dllm_protocol.genesis_document import consensus_params_of
from dllm_protocol.protobuf import read_fields as walk_fields
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.abci import requests
from full_node.consensus.abci.requests import Request, decode_request
from full_node.consensus.abci.types import ValidatorPower
from full_node.state.snapshots import FORMAT
from full_node.state_machine.context import MisbehaviourKind
from tests.full_node.consensus.abci.recorded import conversation, genesis


def asked(name: str, kind: str) -> list[Request]:
    return [decode_request(one.request) for one in conversation(name) if one.kind == kind]


def test_every_recorded_request_is_read_as_its_kind() -> None:
    for name in ("validator", "taker"):
        for one in conversation(name):
            assert type(decode_request(one.request)).__name__ == one.kind


def test_a_chain_begins_with_our_genesis() -> None:
    (request,) = asked("validator", "InitChain")
    assert isinstance(request, requests.InitChain)
    assert request.chain_id == chain_id_of(genesis())
    assert request.params == consensus_params_of(genesis())
    assert request.initial_height == 1
    assert request.time == Timestamp.from_ns(genesis().genesis_time_ms * 1_000_000)
    powers = [ValidatorPower(one.public_key, one.power) for one in genesis().validators]
    assert sorted(request.validators, key=str) == sorted(powers, key=str)


def test_blocks_come_in_order_with_votes_and_once_with_misbehaviour() -> None:
    blocks = asked("validator", "FinalizeBlock")
    assert [one.height for one in blocks if isinstance(one, requests.FinalizeBlock)] == list(
        range(1, len(blocks) + 1)
    )
    offences = [
        offence for one in blocks if isinstance(one, requests.FinalizeBlock) for offence in one.misbehaviour
    ]
    assert [one.kind for one in offences] == [MisbehaviourKind.DUPLICATE_VOTE]
    assert offences[0].total_power == 4 * offences[0].power
    last = blocks[-1]
    assert isinstance(last, requests.FinalizeBlock)
    assert {vote.flag for vote in last.last_commit.votes} <= {1, 2, 3}
    assert len(last.last_commit.votes) == 3
    assert len(last.hash) == len(last.next_validators_hash) == 32
    assert len(last.proposer) == 20


def test_proposals_carry_what_waits_and_who_voted() -> None:
    prepared = [
        one for one in asked("validator", "PrepareProposal") if isinstance(one, requests.PrepareProposal)
    ]
    assert any(one.txs for one in prepared)
    assert all(one.max_tx_bytes > 1 << 20 for one in prepared)
    assert all(vote.flag in (1, 2, 3) for one in prepared for vote in one.last_commit.votes)
    assert any(one.last_commit.votes for one in prepared)


def test_a_snapshot_is_offered_and_given() -> None:
    (offer,) = asked("taker", "OfferSnapshot")
    assert isinstance(offer, requests.OfferSnapshot)
    assert (offer.snapshot.format, len(offer.app_hash), len(offer.snapshot.hash)) == (FORMAT, 32, 32)
    (chunk,) = asked("taker", "ApplySnapshotChunk")
    assert isinstance(chunk, requests.ApplySnapshotChunk)
    assert (chunk.index, len(chunk.sender)) == (0, 40)
    assert chunk.chunk


HAND_MADE = (
    (1, bytes_field(1, b"hello"), requests.Echo("hello")),
    (2, b"", requests.Flush()),
    (6, bytes_field(1, b"k") + bytes_field(2, b"/store") + varint_field(3, 7) + varint_field(4, 1),
     requests.Query(b"k", "/store", 7, prove=True)),
    (8, bytes_field(1, b"tx") + varint_field(2, 1), requests.CheckTx(b"tx", recheck=True)),
    (14, varint_field(1, 9) + varint_field(2, 1) + varint_field(3, 4), requests.LoadSnapshotChunk(9, 1, 4)),
    (18, bytes_field(1, b"h" * 32) + varint_field(2, 3) + message_field(3, b""),
     requests.ExtendVote(b"h" * 32, 3)),
    (19, bytes_field(1, b"h" * 32) + bytes_field(2, b"v" * 20) + varint_field(3, 3) + bytes_field(4, b"e"),
     requests.VerifyVoteExtension(b"h" * 32, b"v" * 20, 3, b"e")),
)  # fmt: skip


@pytest.mark.parametrize(("number", "body", "wanted"), HAND_MADE)
def test_requests_that_no_run_shows_are_read(number: int, body: bytes, wanted: Request) -> None:
    assert decode_request(message_field(number, body)) == wanted


PASSED_ON = (
    # GET /abci_query?path=0xff00 hands CometBFT a path that is no text, and it checks none.
    (6, bytes_field(2, b"\xff\x00/store"), requests.Query(b"", "\\xff\x00/store", 0, prove=False)),
    (6, bytes_field(2, b"/store") + varint_field(3, -(2**63)), requests.Query(b"", "/store", -(2**63), prove=False)),
    # A peer may ask for a chunk of any height but 0.
    (14, varint_field(1, 2**64 - 1) + varint_field(2, 2**32 - 1) + varint_field(3, 2**32 - 1),
     requests.LoadSnapshotChunk(2**64 - 1, 2**32 - 1, 2**32 - 1)),
    (8, b"", requests.CheckTx(b"", recheck=False)),
)  # fmt: skip


@pytest.mark.parametrize(("number", "body", "wanted"), PASSED_ON)
def test_whatever_cometbft_passes_on_from_strangers_is_read(
    number: int, body: bytes, wanted: Request
) -> None:
    assert decode_request(message_field(number, body)) == wanted


@pytest.mark.parametrize("number", [4, 7, 9, 10, 21])
def test_requests_of_other_protocols_are_refused(number: int) -> None:
    with pytest.raises(MalformedBlock, match=f"field {number} is not one of ABCI 2.0"):
        decode_request(message_field(number, b""))


def test_none_and_two_requests_in_one_are_refused() -> None:
    for data in (b"", message_field(2, b"") * 2):
        with pytest.raises(MalformedBlock, match="a Request has one field"):
            decode_request(data)


@given(st.data())
def test_damaged_requests_raise_only_what_is_declared(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([one.request for one in conversation("validator")]))
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + 1 :]
    with contextlib.suppress(MalformedBytes):
        decode_request(damaged)


_CHECKS = st.builds(
    lambda tx, rest: bytes_field(1, tx) + rest,
    st.binary(max_size=300),
    st.sampled_from(
        [b"", varint_field(2, 1), b"\x10\x00", b"\x10\x02", b"\x10\x81\x00", b"\x10\x01\x10\x01"]
    ),
)


@given(_CHECKS, st.integers(0, 11), st.binary(max_size=2), st.integers(0, 2))
@example(bytes_field(1, b"tx") + varint_field(2, 1), 0, b"", 0)
def test_a_check_that_is_read_at_once_is_read_as_any_other(
    body: bytes, at: int, put: bytes, cut: int
) -> None:
    plain = message_field(8, body)
    raw = plain[:at] + put + plain[at + cut :]
    at_once = requests._plain_check_tx(raw) if raw.startswith(requests._CHECK_TX) else None
    if at_once is None:
        return
    ((number, _, inner),) = walk_fields(raw)
    assert number == 8 and isinstance(inner, bytes)
    assert at_once == requests._check_tx(inner)
