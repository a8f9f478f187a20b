"""Who may listen where: what is hashed and signed, and that a signature for one relay is none for another."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.relay import (
    CONTROL_BYTES_MAX,
    RELAY_NAME_BYTES_MAX,
    CloseReason,
    FromRelay,
    ListenByName,
    ListenClaim,
    ToRelay,
    is_proved,
    key_address,
    listen_by_key,
    name_address,
    relay_name,
)
from dllm_protocol.signing import SeedSigner
from tests.vectors.record_relay import FROM_RELAY, KEY, NAME, NONCE, RELAY, TO_RELAY, VECTORS, record

RECORDED = json.loads(VECTORS.read_text("utf-8"))


@pytest.mark.conformance("own-golden-vectors")
def test_every_message_has_the_recorded_bytes() -> None:
    assert record() == RECORDED


def test_recorded_messages_are_read_as_they_were_written() -> None:
    for recorded, message in zip(RECORDED["to relay"], TO_RELAY, strict=True):
        assert ToRelay.decode(bytes.fromhex(recorded["bytes"])).message == message
    for recorded, message in zip(RECORDED["from relay"], FROM_RELAY, strict=True):
        assert FromRelay.decode(bytes.fromhex(recorded["bytes"])).message == message


def test_messages_outside_streams_fit_their_bound() -> None:
    longest = ToRelay(listen_by_key(KEY, "r" * RELAY_NAME_BYTES_MAX, NONCE))
    assert len(longest.encode()) <= CONTROL_BYTES_MAX


def test_a_key_is_proved_for_one_relay_one_connection_and_itself() -> None:
    listen = listen_by_key(KEY, RELAY, NONCE)
    assert is_proved(listen, RELAY, NONCE)
    assert not is_proved(listen, "other.example:443", NONCE)
    assert not is_proved(listen, RELAY, bytes(32))
    other = SeedSigner(b"\x08" * 32)
    assert not is_proved(replace(listen, key=other.public_key), RELAY, NONCE)
    assert not is_proved(replace(listen, signature=bytes(64)), RELAY, NONCE)


def test_a_name_that_looks_like_a_key_has_another_address() -> None:
    assert name_address(KEY.public_key) != key_address(KEY.public_key)
    assert name_address(NAME) != NAME


@pytest.mark.parametrize("length", [0, 15, 65])
def test_names_that_could_be_guessed_or_are_too_long_are_refused(length: int) -> None:
    with pytest.raises(MalformedBytes):
        ListenByName(bytes(length)).encode()


def test_a_claim_names_a_relay() -> None:
    with pytest.raises(MalformedBytes):
        ListenClaim(1, "", NONCE).encode()


def test_one_relay_has_one_name() -> None:
    assert relay_name("Relay.Example.", 443) == "relay.example:443"
    assert relay_name("127.0.0.1", 9700) == "127.0.0.1:9700"
    assert relay_name("[0:0::1]", 9700) == relay_name("::1", 9700) == "[::1]:9700"


def test_every_close_has_words_that_a_websocket_can_carry() -> None:
    for reason in CloseReason:
        assert 0 < len(reason.words.encode()) <= 123
        assert 1000 <= reason <= 4999
