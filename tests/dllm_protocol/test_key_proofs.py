"""A consensus key agrees to one owner on one chain, in a word that people carry."""

from __future__ import annotations

import pytest

from dllm_protocol.actions.validators import BadKeyProof, is_key_proved, key_proof_text, parse_key_proof
from dllm_protocol.commit import BlockID, PartSetHeader, VoteType, vote_sign_bytes
from dllm_protocol.hashing import Tag, domain
from dllm_protocol.signing import SeedSigner, is_sound_key
from dllm_protocol.timestamp import Timestamp

KEY = SeedSigner(b"k" * 32)
OWNER = b"o" * 20


def test_the_word_carries_key_and_proof() -> None:
    key, proof = parse_key_proof(f" {key_proof_text(KEY, 'c-1', OWNER)}\n")
    assert key == KEY.public_key
    assert is_key_proved(key, "c-1", OWNER, proof)
    assert not is_key_proved(key, "c-2", OWNER, proof)
    assert not is_key_proved(key, "c-1", b"p" * 20, proof)
    assert not is_key_proved(key, "c-1", OWNER, b"")


@pytest.mark.parametrize("text", ["", "00", "zz" * 96, "00" * 95, "00" * 97, KEY.public_key.hex()])
def test_any_other_word_is_refused(text: str) -> None:
    with pytest.raises(BadKeyProof, match=str(len(text))):
        parse_key_proof(text)


def test_an_agreement_can_never_be_a_vote() -> None:
    vote = vote_sign_bytes(
        "c-1", VoteType.PRECOMMIT, 1, 0, BlockID(b"h" * 32, PartSetHeader(1, b"p" * 32)), Timestamp(1)
    )
    # A vote begins with its length and the field "type"; the tag's letters are no such field.
    assert vote[1:2] == b"\x08"
    assert domain(Tag.CONSENSUS_KEY)[1:2] != b"\x08"


def test_keys_that_were_made_honestly_are_sound() -> None:
    for number in range(20):
        assert is_sound_key(SeedSigner(bytes([number]) * 32).public_key)
    assert not is_sound_key(KEY.public_key[:31])
    assert not is_sound_key(b"\x01" + bytes(31)), "the neutral element"
