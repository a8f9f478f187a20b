"""How long a client waits for those who serve it, however many they are."""

from __future__ import annotations

from typing import Final

ANSWER_TIMEOUT_S: Final = 20.0
"""Longest wait for one row without a word of progress."""
ROW_TIMEOUT_S: Final = 0.25
"""So much longer for each further row: a prompt on a slow machine."""
BEAT_S: Final = 1.0
"""While an answer is awaited, whoever is to give it is asked for a sign of life so often."""
SILENT_S: Final = 2.5
"""Whoever gave none for so long is taken for dead."""


def patience_s(rows: int) -> float:
    """How long to wait without any progress while so many rows are under way."""
    return ANSWER_TIMEOUT_S + ROW_TIMEOUT_S * (rows - 1)
