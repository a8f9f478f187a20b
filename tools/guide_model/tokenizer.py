"""A small byte-fallback tokenizer that llama.cpp's SPM tokenizer reproduces exactly.

Vocabulary: <unk>, <s>, <|im_end|>, <|im_start|>, 256 bytes, then pieces by merge rank. Encoding merges, again and
again, the neighbouring pair whose union is the piece of the best score (the leftmost among equals), as
``llm_tokenizer_spm`` in llama.cpp does. No piece holds a space except as its first sign, so words encode alone.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable

SPACE = "\u2581"
UNK, BOS, IM_END, IM_START = 0, 1, 2, 3
CONTROLS = ("<unk>", "<s>", "<|im_end|>", "<|im_start|>")
FIRST_BYTE = len(CONTROLS)
FIRST_PIECE = FIRST_BYTE + 256
_CHUNK = re.compile(rf"{SPACE}?[^{SPACE}]+|{SPACE}")
_LEARN = re.compile(rf"{SPACE}?[A-Za-z_]+|{SPACE}?[^{SPACE}A-Za-z_\n]")


def learn_pieces(texts: Iterable[str], size: int) -> list[str]:
    """Byte-pair pieces in order of learning: single characters by frequency, then merges.

    Args:
        texts: What to learn from.
        size: The whole vocabulary's size, controls and bytes included.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_LEARN.findall(text.replace(" ", SPACE)))
    words = {word: list(word) for word in counts}
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for char in word:
            characters[char] += count
    pieces = [
        c
        for c, n in sorted(characters.items(), key=lambda item: (-item[1], item[0]))
        if n >= 3 and c.isascii()
    ]
    pieces = [SPACE, *pieces]
    while len(pieces) < size - FIRST_PIECE:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += counts[word]
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        pieces.append(left + right)
        for word, parts in words.items():
            if left in parts:
                words[word] = _merge(parts, left, right)
    return pieces


def _merge(parts: list[str], left: str, right: str) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(parts):
        if at + 1 < len(parts) and parts[at] == left and parts[at + 1] == right:
            out.append(left + right)
            at += 2
        else:
            out.append(parts[at])
            at += 1
    return out


class Tokenizer:
    """Text to ids, with a memory of words already encoded."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces
        self.ids = {piece: FIRST_PIECE + rank for rank, piece in enumerate(pieces)}
        if len(self.ids) != len(pieces):
            raise ValueError(f"{len(pieces)} pieces, but {len(self.ids)} distinct")
        self._known: dict[str, list[int]] = {}

    @property
    def size(self) -> int:
        return FIRST_PIECE + len(self.pieces)

    def _encode_chunk(self, chunk: str) -> list[int]:
        known = self._known.get(chunk)
        if known is not None:
            return known
        parts = list(chunk)
        while len(parts) > 1:
            ranks = [self.ids.get(a + b, self.size) for a, b in itertools.pairwise(parts)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == self.size:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        found: list[int] = []
        for part in parts:
            if part in self.ids:
                found.append(self.ids[part])
            else:
                found.extend(FIRST_BYTE + byte for byte in part.encode())
        self._known[chunk] = found
        return found

    def encode(self, text: str, rng: random.Random | None = None, split: float = 0.0) -> list[int]:
        """The ids of plain text; control tokens are never produced.

        Args:
            rng, split: With probability split a word is cut once at random before encoding, so that the model meets
                words in other pieces too.
        """
        out: list[int] = []
        for chunk in _CHUNK.findall(text.replace(" ", SPACE)):
            if rng is not None and len(chunk) > 3 and rng.random() < split:
                at = rng.randrange(2, len(chunk))
                out.extend(self._encode_chunk(chunk[:at]))
                out.extend(self._encode_chunk(chunk[at:]))
            else:
                out.extend(self._encode_chunk(chunk))
        return out
