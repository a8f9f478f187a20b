"""A vocabulary small enough to read: bytes, some words, and ChatML's control tokens."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_protocol.vocabulary import CONTROL, NORMAL, TokenPiece, Vocabulary

BEGIN, END, IM_START, IM_END = 0, 1, 2, 3
_CONTROL = (b"<s>", b"</s>", b"<|im_start|>", b"<|im_end|>")
_WORDS = (b"hello", b" world", b"STOP", b"ST", b"OP")
FIRST_BYTE = len(_CONTROL)
FIRST_WORD = FIRST_BYTE + 256

VOCABULARY = Vocabulary(
    version=1,
    pieces=(
        *(TokenPiece(text, CONTROL) for text in _CONTROL),
        *(TokenPiece(bytes([byte]), NORMAL) for byte in range(256)),
        *(TokenPiece(text, NORMAL) for text in _WORDS),
    ),
    begin_token=BEGIN,
    end_token=END,
    adds_begin=1,
    adds_space=0,
)


def byte_ids(text: str | bytes) -> list[int]:
    """Each byte as its own token."""
    raw = text.encode() if isinstance(text, str) else text
    return [FIRST_BYTE + byte for byte in raw]


def word(text: str) -> int:
    return FIRST_WORD + _WORDS.index(text.encode())


class Tokenizer:
    """What a stage answers, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def __call__(self, texts: Sequence[bytes]) -> list[list[int]]:
        self.asked += texts
        return [byte_ids(text) for text in texts]
