"""What will probably be said next, because it was said before: n-gram lookup over prompt and answer.

The longest end of the text that stood somewhere earlier is found, and what followed there is proposed. It needs no
draft model, and it guesses well where an answer repeats: an edit of code, a quotation, a list. The index grows with
each token in constant time; nothing is searched again. No clock, no chance, no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (8, 5, 3, 2)
"""Lengths of the n-grams that are indexed, the longest first."""
MATCH_MAX: Final = 32
"""A match longer than this is as good as one of this length."""


@dataclass(frozen=True, slots=True)
class Match:
    """The end of the text stood earlier, too."""

    source: int
    """Index of the token that followed there."""
    length: int
    """Tokens that agree, at most `MATCH_MAX`."""


class Lookup:
    """A text of token ids that grows, and where its n-grams stood last."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._behind: dict[int, dict[tuple[int, ...], int]] = {size: {} for size in SIZES}
        """n-gram → index of the token behind its latest occurrence."""
        self._match: Match | None = None
        for token in tokens:
            self.append(token)

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def tokens(self) -> list[int]:
        """The text."""
        return list(self._tokens)

    @property
    def match(self) -> Match | None:
        """The longest known match of the text's end."""
        return self._match

    def append(self, token: int) -> None:
        """The text goes on."""
        self._tokens.append(token)
        end = len(self._tokens)
        source = -1
        for size in SIZES:
            if size > end:
                continue
            behind = self._behind[size]
            gram = tuple(self._tokens[end - size :])
            if source < 0:
                source = behind.get(gram, -1)
            behind[gram] = end
        self._match = Match(source, self._agreeing(source)) if source >= 0 else None

    def propose(self, count: int, source: int, flying: Sequence[int] = ()) -> list[int]:
        """``count`` tokens copied from index ``source`` on.

        A copy that reaches the end of the text goes on with what it has copied, as a text does that repeats itself.

        Args:
            flying: tokens proposed before, which stand behind the text while nobody has confirmed them.
        """
        known = len(self._tokens)
        tail = list(flying)
        begin = len(tail)
        for at in range(source, source + count):
            tail.append(self._tokens[at] if at < known else tail[at - known])
        return tail[begin:]

    def _agreeing(self, source: int) -> int:
        """How many tokens before ``source`` agree with the text's end."""
        tokens, end = self._tokens, len(self._tokens)
        most = min(MATCH_MAX, source)
        length = 0
        while length < most and tokens[source - 1 - length] == tokens[end - 1 - length]:
            length += 1
        return length
