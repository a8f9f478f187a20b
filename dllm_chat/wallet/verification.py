"""Was the mnemonic written down? Some of its words are asked back."""

from __future__ import annotations

import hmac
import random
import secrets
from collections.abc import Mapping

ASKED_WORDS = 4


def pick_positions(
    word_count: int, asked: int = ASKED_WORDS, chance: random.Random | None = None
) -> tuple[int, ...]:
    """Which words to ask back: distinct positions, counted from 1, ascending.

    Args:
        chance: the source of randomness, the operating system's by default.
    """
    if not 1 <= asked <= word_count:
        raise ValueError(f"cannot ask for {asked} of {word_count} words")
    return tuple(sorted((chance or secrets.SystemRandom()).sample(range(1, word_count + 1), asked)))


def wrong_positions(mnemonic: str, answers: Mapping[int, str]) -> tuple[int, ...]:
    """Positions (from 1) whose answer is not that word, ascending; empty when all are right."""
    words = mnemonic.split()
    wrong = []
    for position, answer in sorted(answers.items()):
        expected = words[position - 1] if 1 <= position <= len(words) else ""
        typed = answer.strip().lower()
        if not expected or not hmac.compare_digest(typed.encode(), expected.encode()):
            wrong.append(position)
    return tuple(wrong)
