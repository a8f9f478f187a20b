"""Token ids must spell the text that they were asked for, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.vocabulary import (
    CONTROL,
    NO_TOKEN,
    NORMAL,
    UNUSED,
    TokenPiece,
    TokensRefused,
    Vocabulary,
    check_spelling,
    spelled,
    vocabulary_hash,
)

PIECES = (
    TokenPiece(b"<s>", CONTROL),
    TokenPiece(b" hello", NORMAL),
    TokenPiece(b"hello", NORMAL),
    TokenPiece(b" world", NORMAL),
    TokenPiece(b"\xc3", NORMAL),
    TokenPiece(b"\xbc", NORMAL),
    TokenPiece(b"spare", UNUSED),
)
PLAIN = Vocabulary(1, PIECES, begin_token=0, end_token=NO_TOKEN, adds_begin=1, adds_space=0)
SPACED = replace(PLAIN, adds_space=1)


def test_tokens_spell_their_text_and_control_tokens_nothing() -> None:
    assert spelled(PLAIN, (0, 2, 3, 6)) == b"hello world"


@pytest.mark.parametrize(
    ("vocabulary", "ids", "text"),
    [
        (PLAIN, (2, 3), "hello world"),
        (SPACED, (1, 3), "hello world"),
        (SPACED, (2, 3), "hello world"),
        (PLAIN, (4, 5), "ü"),
        (PLAIN, (), ""),
    ],
)
def test_ids_that_spell_the_text_are_taken(vocabulary: Vocabulary, ids: tuple[int, ...], text: str) -> None:
    check_spelling(vocabulary, ids, text.encode())


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ((1, 3), "at byte 0"),
        ((2,), "at byte 5"),
        ((2, 3, 3), "at byte 11"),
        ((0, 2, 3), "token 0 at 0 is not text"),
        ((2, 6, 3), "token 6 at 1 is not text"),
        ((2, 7), "token 7 at 1 is outside"),
        ((2, -1), "token -1 at 1 is outside"),
    ],
)
def test_ids_that_spell_something_else_are_refused_with_the_place(ids: tuple[int, ...], words: str) -> None:
    with pytest.raises(TokensRefused, match=words):
        check_spelling(PLAIN, ids, b"hello world")


def test_another_vocabulary_has_another_hash() -> None:
    assert vocabulary_hash(PLAIN) != vocabulary_hash(SPACED)
    assert Vocabulary.decode(PLAIN.encode()) == PLAIN


def test_more_tokens_than_bytes_are_refused_whatever_they_spell() -> None:
    # A stage would be paid for a row each.
    silent = replace(PLAIN, pieces=(*PIECES, TokenPiece(b"", NORMAL)))
    nothing = len(PIECES)
    with pytest.raises(TokensRefused, match="3 tokens were given for 1 bytes"):
        check_spelling(silent, [nothing, nothing, nothing], b"x")
