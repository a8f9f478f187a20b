"""Whatever a stranger sends, only the declared error tree comes out of a decoder."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm_protocol.errors import DllmError, MalformedBytes
from tests.fuzz.decoder import Decoder, OtherSpelling, canonical, refused
from tests.fuzz.mutations import bent
from tests.fuzz.table import decoders

ALL = pytest.mark.parametrize("decoder", decoders(), ids=lambda one: one.name)
HOSTILE = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 100_000,
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x0a\x00" * 50_000,
    b"\xff" * 100_000,
    b"1e999999999",
    b"null",
    b'"\\ud800"',
    b"\xed\xa0\x80",
)
"""Deep nesting, huge numbers, lengths that lie, endless varints, half of a surrogate pair."""
REFUSED_EXAMPLES = {
    "full_node.keys.load_key",
    "full_node.consensus.chain_state.ChainState.decode",
    "full_node.consensus.sign_state.SignState.load",
    "dllm_chat.session.receipts.load_receipt",
    "light_node.rpc_connection._refusal",
}
"""Decoders whose examples are right in form and refused for what they say."""


@ALL
def test_the_first_example_is_read(decoder: Decoder) -> None:
    error = refused(decoder, decoder.examples[0])
    assert (error is not None) == (decoder.name in REFUSED_EXAMPLES), error


@ALL
def test_inputs_that_break_careless_readers(decoder: Decoder) -> None:
    for hostile in HOSTILE:
        refused(decoder, hostile)


@ALL
@given(st.binary(max_size=300))
@settings(max_examples=40)
def test_any_bytes(decoder: Decoder, data: bytes) -> None:
    refused(decoder, data)


@ALL
@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_bent_examples(decoder: Decoder, seed: int) -> None:
    chance = random.Random(seed)
    example = chance.choice(decoder.examples)
    refused(decoder, bent(example, chance, is_json=decoder.is_json))


def test_another_spelling_and_another_error_are_noticed() -> None:
    class Loose:
        """Takes what it should not."""

        def __init__(self, data: bytes) -> None:
            if data == b"boom":
                raise KeyError(data)
            if data == b"no":
                raise MalformedBytes("no")

        def encode(self) -> bytes:
            return b"one form"

    loose = Decoder("loose", "test", canonical(Loose), (b"one form",))
    assert refused(loose, b"one form") is None
    assert isinstance(refused(loose, b"no"), DllmError)
    with pytest.raises(OtherSpelling):
        refused(loose, b"other")
    with pytest.raises(KeyError):
        refused(loose, b"boom")
