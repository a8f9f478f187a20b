"""From a server's names of tokens to ids of the model's vocabulary, and from ids to the text that asks for them.

An id is taken where the server gives one. A text is taken for a token only where no other token is spelled so:
nothing is guessed. One rule is beside that: a single byte's token gives way to a word's with the same spelling,
because tokenizers make the byte's only where there is no word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from local_worker.engine.messages import BYTE, CONTROL, UNKNOWN, UNUSED, EngineVocabulary, RowOutput
from local_worker.remote_engine.answers import RemoteRow, TokenName
from local_worker.remote_engine.errors import RemoteDisagrees, RemoteMalformed, RemoteTokenUnclear, quoted

TOKEN_ID = re.compile(r"token_id:([0-9]{1,9})", re.ASCII)
_SUM_SLACK = 1e-2
"""By how much a server's rounding may lift the sum of its probabilities above 1."""


class Words:
    """A vocabulary, by name."""

    def __init__(self, vocabulary: EngineVocabulary) -> None:
        self.vocabulary = vocabulary
        self.size = len(vocabulary.pieces)
        self.end_ids = frozenset(vocabulary.end_ids)
        self._by_text: dict[str, int] = {}
        self._spelled: dict[str, int] = {}
        yielding: dict[str, int] = {}
        for token, text in self._names():
            kinds = yielding if vocabulary.attributes[token] & BYTE else self._spelled
            kinds[text] = kinds.get(text, 0) + 1
        for token, text in self._names():
            is_byte = vocabulary.attributes[token] & BYTE
            if (yielding if is_byte else self._spelled)[text] == 1 and not (
                is_byte and text in self._spelled
            ):
                self._by_text[text] = token

    def _names(self) -> list[tuple[int, str]]:
        found = []
        for token, piece in enumerate(self.vocabulary.pieces):
            if self.vocabulary.attributes[token] & (UNUSED | UNKNOWN) or not piece:
                continue
            try:
                found.append((token, piece.decode()))
            except UnicodeDecodeError:
                continue
        return found

    def is_control(self, token: int) -> bool:
        """Whether a token stands for no text."""
        return bool(self.vocabulary.attributes[token] & (CONTROL | UNKNOWN | UNUSED))

    def spelled(self, ids: Sequence[int]) -> bytes:
        """The text that ids stand for, control tokens left out."""
        return b"".join(self.vocabulary.pieces[token] for token in ids if not self.is_control(token))

    def marked(self, ids: Sequence[int]) -> str | None:
        """The same with control tokens by their names; None where the bytes are no text."""
        try:
            return b"".join(self.vocabulary.pieces[token] for token in ids).decode()
        except UnicodeDecodeError:
            return None

    def id_of(self, name: TokenName) -> int | None:
        """Which token a server means; None where its text is nobody's, or not one token's alone.

        Raises:
            RemoteDisagrees: an id that the vocabulary has not, or has with other bytes.
        """
        token = name.id
        if token is None and (match := TOKEN_ID.fullmatch(name.text)):
            token = int(match[1])
        if token is None:
            return self._by_text.get(name.text)
        if token >= self.size:
            raise RemoteDisagrees(
                f"the server names token {token}, the model file has {self.size}",
                hint="it serves another model, or a padded vocabulary",
            )
        if name.raw and not self.is_control(token) and name.raw != self.vocabulary.pieces[token]:
            here, there = self.vocabulary.pieces[token][:40], name.raw[:40]
            raise RemoteDisagrees(
                f"token {token} is {here!r} in the model file and {there!r} at the server",
                hint="give the file of the model that the server runs; or the server skipped a row",
            )
        return token

    def output(self, row: RemoteRow, position: int, top_k: int) -> RowOutput:
        """What a client gets of one row. A log-probability is a logit whose row is normalised already.

        Tokens that the server names unclearly are left out, unless one of them is the likeliest.

        Raises:
            RemoteTokenUnclear, RemoteDisagrees, RemoteMalformed
        """
        found: dict[int, float] = {}
        for index, (name, logprob) in enumerate(row.top):
            token = self.id_of(name)
            if token is not None:
                found.setdefault(token, logprob)
            elif index == 0:
                raise RemoteTokenUnclear(
                    f"the server names the likeliest token at row {position} by {quoted(name.text)}, "
                    f"which {self._spelled.get(name.text, 0)} tokens are spelled as",
                    hint="serve from a server that names tokens by id: vLLM, or llama-server",
                )
        if not found:
            raise RemoteMalformed(
                f"the server gave no likely token for row {position}",
                hint="switch off speculative decoding at the server",
            )
        total = math.fsum(map(math.exp, found.values()))
        if total > 1 + _SUM_SLACK:
            raise RemoteMalformed(f"the probabilities at row {position} sum to {total:.3f}")
        best = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:top_k]
        ids = np.array([token for token, _ in best], dtype=np.int32)
        return RowOutput(position, ids, np.array([value for _, value in best], dtype=np.float32), 0.0)
