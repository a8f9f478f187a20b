"""Stages' messages byte for byte, and who may say that it is the stage before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dllm_protocol.errors import ChannelRefused, MalformedBytes
from dllm_protocol.hashing import sha256
from dllm_protocol.lane import LaneMessage, LaneStream
from dllm_protocol.messages import MAX_FRAME_BYTES, Frame
from dllm_protocol.sealing import SealBroken, SealedStream, SealingKey
from dllm_protocol.session.handshake import ProviderNotProved
from dllm_protocol.session.transcript import RowLabel
from dllm_protocol.signing import SeedSigner
from dllm_protocol.stage_link import (
    HandedRows,
    StageFrame,
    StageLink,
    StageReady,
    check_stage_claim,
    make_stage_claim,
)
from tests.vectors.record_stages import VECTORS, record

GOLDEN: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))
LANE: dict[str, Any] = GOLDEN["lane"]
OTHER_SIDE = {"dialling": "answering", "answering": "dialling"}
KEY = SeedSigner(b"\x11" * 32)


def test_the_golden_vectors_are_made_again_to_the_byte() -> None:
    assert record() == GOLDEN


@pytest.mark.parametrize("one", GOLDEN["to_stages"], ids=lambda one: one["type"])
def test_a_message_to_a_stage_is_read_as_it_was_written(one: dict[str, str]) -> None:
    raw = bytes.fromhex(one["frame"])
    (message,) = Frame.decode(raw).messages
    assert (type(message).__name__, Frame((message,)).encode()) == (one["type"], raw)


@pytest.mark.parametrize("one", GOLDEN["between"], ids=lambda one: one["type"])
def test_a_message_between_stages_is_read_as_it_was_written(one: dict[str, str]) -> None:
    raw = bytes.fromhex(one["frame"])
    (message,) = StageFrame.decode(raw).messages
    assert (type(message).__name__, StageFrame((message,)).encode()) == (one["type"], raw)


def lane_end(side: str) -> LaneStream:
    """One side's end, behind the frames that came before the lane's first."""
    own, other = (bytes.fromhex(LANE["keys"][one]) for one in (side, OTHER_SIDE[side]))
    stream, theirs = SealedStream(own, other), SealedStream(other, own)
    for _ in range(LANE["first_nonce"]):
        stream.seal(b"")
        stream.open(theirs.seal(b""))
    return LaneStream(stream)


def said_over_the_lane(side: str) -> list[tuple[LaneMessage, bytes]]:
    """What one side says, and the recorded bytes of it."""
    return [
        (
            LaneMessage(one["kind"], one["request"], one["position"], bytes.fromhex(one["body"])),
            bytes.fromhex(one["hex"]),
        )
        for one in LANE["frames"]
        if one["from"] == side
    ]


@pytest.mark.parametrize("side", OTHER_SIDE)
def test_what_goes_over_a_lane_is_packed_as_it_was_recorded(side: str) -> None:
    said, end = said_over_the_lane(side), lane_end(side)
    assert said
    assert [end.pack(*message) for message, _ in said] == [raw for _, raw in said]


@pytest.mark.parametrize("side", OTHER_SIDE)
@pytest.mark.parametrize("piece_bytes", [1, 85, 1 << 20])
def test_what_was_recorded_of_a_lane_is_read_however_it_is_cut(side: str, piece_bytes: int) -> None:
    said, end = said_over_the_lane(side), lane_end(OTHER_SIDE[side])
    assert said
    data = b"".join(raw for _, raw in said)
    pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
    assert [got for piece in pieces for got in end.feed(piece)] == [message for message, _ in said]


def test_a_claim_counts_for_one_handshake_and_one_key() -> None:
    handshake, other = sha256(b"one"), sha256(b"other")
    claim = make_stage_claim(KEY, b"\x21" * 20, handshake)
    check_stage_claim(claim, KEY.public_key, handshake)
    for key, hash_of_handshake in ((KEY.public_key, other), (SeedSigner(b"\x12" * 32).public_key, handshake)):
        with pytest.raises(ProviderNotProved):
            check_stage_claim(claim, key, hash_of_handshake)


def test_a_claim_says_whether_it_is_for_a_lane() -> None:
    assert make_stage_claim(KEY, b"\x21" * 20, sha256(b"one")).lane == 0
    claim = make_stage_claim(KEY, b"\x21" * 20, sha256(b"one"), lane=True)
    assert claim.lane == 1
    check_stage_claim(claim, KEY.public_key, sha256(b"one"))


def test_a_link_that_was_handed_over_goes_on_elsewhere() -> None:
    before, behind = linked()
    assert behind.open(before.seal(StageReady(4))) == (StageReady(4),)
    taken = StageLink(SealedStream.taken_over(before.hand_over()))
    assert behind.open(taken.seal(StageReady(5))) == (StageReady(5),)
    with pytest.raises(OverflowError):
        before.seal(StageReady(6))


def linked() -> tuple[StageLink, StageLink]:
    one, other = SealingKey(b"\x01" * 32), SealingKey(b"\x02" * 32)
    return StageLink(one.client_stream(other.public_key)), StageLink(other.provider_stream(one.public_key))


def test_frames_open_once_and_in_order() -> None:
    before, behind = linked()
    first, second = (before.seal(HandedRows(n, 0, 1, 1, bytes(8))) for n in (1, 2))
    with pytest.raises(SealBroken):
        behind.open(second)
    before, behind = linked()
    assert behind.open(first) == (HandedRows(1, 0, 1, 1, bytes(8)),)
    with pytest.raises(SealBroken):
        behind.open(first)
    assert before.open(behind.seal(StageReady(4))) == (StageReady(4),)


def test_what_is_too_long_or_no_message_is_refused() -> None:
    before, behind = linked()
    with pytest.raises(ChannelRefused, match="at most"):
        behind.open(bytes(MAX_FRAME_BYTES + 1))
    with pytest.raises(MalformedBytes):
        behind.open(before._stream.seal(b"\xff\xff"))
    with pytest.raises(MalformedBytes):
        StageFrame((HandedRows(1, 0, 0, 1, bytes(8)),)).encode()


def test_labels_grow_with_the_rows_and_tell_nothing_without_the_secret() -> None:
    label, ids = RowLabel(b"\x31" * 32), [4, 5, 6, 7, 8]
    assert label.extended(ids[:2]) == label.of(ids[:2])
    assert label.extended(ids[2:]) == label.of(ids) and label.rows == 5
    label.restart(ids[:3])
    assert label.extended(ids[3:]) == label.of(ids)
    assert RowLabel(b"\x32" * 32).of(ids) != label.of(ids)
