"""A tokenizer's pieces, as the client needs them: to check token ids against text and to show tokens [format].

The client never tokenises; a stage does, and the client checks that the ids spell exactly the text that it
asked for. So a client needs no compiler, and a stage cannot slip words into a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from dllm_protocol.encoding import (
    BOOL,
    U32,
    ByteString,
    FormatVersion,
    ListOf,
    Nested,
    Record,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash

NORMAL, CONTROL, UNUSED = 0, 1, 2
MAX_PIECE_BYTES = 1024
MAX_PIECES = 1 << 20
NO_TOKEN = (1 << 32) - 1


class TokensRefused(VerificationFailed):
    """Token ids that do not spell the text they were asked for."""

    code = "E_TOKENS"


@record
class TokenPiece(Record):
    """One token."""

    text: bytes = wire(1, ByteString(0, MAX_PIECE_BYTES))
    """The bytes that it stands for in running text; for control tokens their name, which is never shown."""
    kind: int = wire(2, Unsigned(UNUSED))
    """NORMAL (text, single bytes included), CONTROL or UNUSED."""


@record
class Vocabulary(Record):
    """All pieces of a tokenizer, indexed by token id."""

    version: int = wire(1, FormatVersion(1, minimum=1))
    pieces: tuple[TokenPiece, ...] = wire(2, ListOf(Nested(TokenPiece), MAX_PIECES, minimum=1))
    begin_token: int = wire(3, U32)
    """Id of the token that starts a sequence, or NO_TOKEN."""
    end_token: int = wire(4, U32)
    """Id of the token that ends an answer, or NO_TOKEN."""
    adds_begin: int = wire(5, BOOL)
    """1 where the model expects the begin token at position 0."""
    adds_space: int = wire(6, BOOL)
    """1 where tokenising puts one space before the text (SentencePiece's dummy prefix)."""


def vocabulary_hash(vocabulary: Vocabulary) -> bytes:
    """Identity of a tokenizer's pieces (32 bytes)."""
    return vocabulary_bytes_hash(vocabulary.encode())


def vocabulary_bytes_hash(raw: bytes) -> bytes:
    """The same of canonical bytes that a stranger sent: so they need not be parsed to be refused."""
    return tagged_hash(Tag.VOCABULARY, raw)


def spelled(vocabulary: Vocabulary, ids: Sequence[int]) -> bytes:
    """The bytes that token ids stand for; control and unused tokens stand for nothing."""
    pieces = vocabulary.pieces
    return b"".join(pieces[token].text for token in ids if pieces[token].kind == NORMAL)


def check_spelling(vocabulary: Vocabulary, ids: Sequence[int], text: bytes) -> None:
    """Refuse ids that do not spell ``text`` or that contain control tokens.

    Raises:
        TokensRefused: with the first place where text and tokens part.
    """
    if len(ids) > len(text) + 1:
        # Each token of text stands for a byte at least; tokens that stand for nothing would be rows to pay for.
        raise TokensRefused(f"{len(ids)} tokens were given for {len(text)} bytes of text")
    for position, token in enumerate(ids):
        if not 0 <= token < len(vocabulary.pieces):
            raise TokensRefused(
                f"token {token} at {position} is outside the vocabulary of {len(vocabulary.pieces)}"
            )
        if vocabulary.pieces[token].kind != NORMAL:
            raise TokensRefused(
                f"token {token} at {position} is not text: only the client places control tokens"
            )
    got = spelled(vocabulary, ids)
    if got == text or (vocabulary.adds_space and got == b" " + text):
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(got, text, strict=False)) if a != b), min(len(got), len(text))
    )
    raise TokensRefused(
        f"the tokens spell {got[place : place + 20]!r} where the prompt says {text[place : place + 20]!r}, "
        f"at byte {place}"
    )
