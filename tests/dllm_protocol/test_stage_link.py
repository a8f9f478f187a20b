"""Stages' messages byte for byte, and who may say that it is the stage before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dllm_protocol.errors import ChannelRefused, MalformedBytes
from dllm_protocol.hashing import sha256
from dllm_protocol.messages import MAX_FRAME_BYTES, Frame
from dllm_protocol.sealing import SealBroken, SealingKey
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


def test_a_claim_counts_for_one_handshake_and_one_key() -> None:
    handshake, other = sha256(b"one"), sha256(b"other")
    claim = make_stage_claim(KEY, b"\x21" * 20, handshake)
    check_stage_claim(claim, KEY.public_key, handshake)
    for key, hash_of_handshake in ((KEY.public_key, other), (SeedSigner(b"\x12" * 32).public_key, handshake)):
        with pytest.raises(ProviderNotProved):
            check_stage_claim(claim, key, hash_of_handshake)


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
