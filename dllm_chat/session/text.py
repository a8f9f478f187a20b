"""From tokens to text that may be shown: whole characters, no stop strings, nothing that a terminal obeys."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from dllm_chat.sanitize import clean
from dllm_protocol.vocabulary import NORMAL, Vocabulary


class TextStream:
    """Turns tokens into text as they come.

    Text that may still become a stop string is held back until it is clear; a stop string and what follows it
    are never shown.
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        # Text is searched as it is shown, without what a terminal obeys.
        self._stops = tuple(filter(None, map(clean, stops)))
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._started = False
        self.stopped = False
        self.text = ""
        """Everything shown so far."""

    def push(self, token: int) -> str:
        """Take a token; return what can be shown now."""
        piece = self._vocabulary.pieces[token]
        if self.stopped or piece.kind != NORMAL:
            return ""
        return self._take(self._decoder.decode(piece.text))

    def finish(self) -> str:
        """The answer is over; return what was held back."""
        if self.stopped:
            return ""
        rest = self._take(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        if self.stopped:
            return rest
        self.text += held
        return rest + held

    def _take(self, text: str) -> str:
        text = clean(text)
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        self._held += text
        cut = min((at for at in map(self._held.find, self._stops) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            shown, self._held = self._held[:cut], ""
        else:
            keep = _possible_start(self._held, self._stops)
            shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self.text += shown
        return shown


def _possible_start(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that begins some stop string."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
