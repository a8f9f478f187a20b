"""Questions to one server about rows, in its dialect, each bounded in tries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from local_worker.remote_engine.answers import Completion, RemoteRow, TokenName, read_completion
from local_worker.remote_engine.dialect import Dialect
from local_worker.remote_engine.errors import (
    RemoteBusy,
    RemoteCutOff,
    RemoteMalformed,
    RemoteModelChanged,
    RemoteTextUnclear,
    RemoteUnreachable,
)
from local_worker.remote_engine.http import RemoteHttp, RemoteStream
from local_worker.remote_engine.words import Words

PATH: Final = "/completions"
Answer = TypeVar("Answer")
MAX_END_IDS = 16
CLOSE = 0.05
"""Log-probabilities of one row may differ by so much between two requests: batches of another shape, rounding."""
_ECHO_ENTRY_BYTES = 96
_FORBIDDING = -100.0
"""The strongest bias that OpenAI's interface takes."""


class Tokenizer(Protocol):
    """The model file's own tokenizer."""

    async def tokenize(self, text: str, *, marked: bool = False) -> list[int]:
        """Ids of a text, no begin token before it; control tokens are read as such where ``marked``."""
        ...


class Asker:
    """One server, examined."""

    def __init__(self, http: RemoteHttp, words: Words, tokenizer: Tokenizer, dialect: Dialect) -> None:
        self.http = http
        self.words = words
        self.dialect = dialect
        self.limits = http.server.limits
        self.answering_model = ""
        """What the server called its model when it was examined; another name later ends the engine."""
        self._tokenizer = tokenizer

    async def prompt(self, ids: Sequence[int]) -> str | Sequence[int]:
        """How these rows are put to the server.

        Raises:
            RemoteTextUnclear: it takes text only, and reads theirs as other tokens.
        """
        if self.dialect.takes_ids:
            return ids
        vocabulary = self.words.vocabulary
        begins = vocabulary.adds_bos
        if begins and ids[0] != vocabulary.bos:
            raise RemoteTextUnclear(
                f"the server puts token {vocabulary.bos} before every text, and these rows begin with {ids[0]}"
            )
        wanted = list(ids[1:] if begins else ids)
        text = self.words.marked(wanted)
        if text is None:
            raise RemoteTextUnclear(f"{len(ids)} rows end inside a character, and the server takes text only")
        for candidate in {text: 0, text.removeprefix(" "): 0} if vocabulary.adds_space else (text,):
            if await self._tokenizer.tokenize(candidate, marked=True) == wanted:
                return candidate
        raise RemoteTextUnclear(
            f"the server takes text only, and reads that of these {len(ids)} rows as other tokens",
            hint="serve from a server that takes token ids: vLLM, or llama-server",
        )

    async def complete(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        top_k: int,
        echo: bool = False,
        bias: Mapping[int, float] | None = None,
    ) -> Completion:
        """A completion in one piece.

        Raises:
            Errors of `RemoteHttp.post`, RemoteRefused, RemoteMalformed, RemoteModelChanged.
        """
        body = self.dialect.request(prompt, max_tokens=max_tokens, top_k=top_k, echo=echo, bias=bias)
        patience_s = self.limits.first_row_s
        found = read_completion(
            await self.patiently(lambda: self.http.post(PATH, body, timeout_s=patience_s))
        )
        self.check_model(found)
        return found

    async def open(self, prompt: str | Sequence[int], *, max_tokens: int, top_k: int) -> RemoteStream:
        """A completion as a stream.

        Raises:
            Errors of `RemoteHttp.open`.
        """
        body = self.dialect.request(prompt, max_tokens=max_tokens, top_k=top_k, stream=True)
        return await self.patiently(lambda: self.http.open(PATH, body))

    async def patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask again where the server is busy or nobody answers, a bounded number of times.

        Raises:
            What the last try raised.
        """
        pause_s = self.limits.pause_s
        for left in reversed(range(self.limits.tries)):
            try:
                return await ask()
            except (RemoteBusy, RemoteUnreachable, RemoteCutOff) as error:
                if not left:
                    raise
                wished_s = error.retry_after_s if isinstance(error, RemoteBusy) else 0.0
                await asyncio.sleep(min(max(pause_s, wished_s), self.limits.longest_pause_s))
                pause_s *= 2
        raise AssertionError("tries is at least 1")

    def check_model(self, found: Completion) -> None:
        """Refuse an answer of another model than the one examined.

        Raises:
            RemoteModelChanged
        """
        if self.answering_model and found.model and found.model != self.answering_model:
            raise RemoteModelChanged(
                f"the server answers for {found.model[:80]!a}, it was {self.answering_model[:80]!a}"
            )

    async def end_row(self, ids: Sequence[int], top_k: int) -> RemoteRow:
        """The row after ``ids``, where the server stops and shows no row of the token that it stopped at.

        An echo shows it, once with the likeliest token alone, whose log-probability is then the end's, and once with
        the others by their names. Which end it is, where the model has several, the server says by going on once that
        one is forbidden.

        Raises:
            RemoteMalformed: the server shows no such row.
            As `complete`.
        """
        end = await self._which_end(ids)
        offset = self.dialect.echo_offset
        if offset is None:
            raise RemoteMalformed("the server ended its answer and shows no row of the end")
        # With the end behind them the rows' last one is shown wherever a server puts it.
        prompt = await self.prompt([*ids, end])
        (likeliest,) = await self._echoed(prompt, len(ids) + offset, 1)
        room = self.limits.max_answer_bytes // (_ECHO_ENTRY_BYTES * (len(ids) + 1))
        others = await self._echoed(prompt, len(ids) + offset, max(1, min(top_k, room)))
        logprob = likeliest[1]
        kept = [(name, value) for name, value in others if name.text]
        if kept and kept[0][1] > logprob + CLOSE:
            raise RemoteMalformed("the server ended its answer where another token than an end was likelier")
        name = TokenName("", end)
        return RemoteRow(name, ((name, logprob), *kept))

    async def _echoed(
        self, prompt: str | Sequence[int], index: int, top_k: int
    ) -> tuple[tuple[TokenName, float], ...]:
        found = await self.complete(prompt, max_tokens=1, top_k=top_k, echo=True)
        row = found.rows[index] if index < len(found.rows) else None
        if row is None or not row.top:
            raise RemoteMalformed(f"the server's echo of {len(found.rows)} rows has none at {index}")
        return row.top[:1] if top_k == 1 else row.top

    async def _which_end(self, ids: Sequence[int]) -> int:
        ends = sorted(self.words.end_ids)[:MAX_END_IDS]
        if len(ends) == 1:
            return ends[0]
        prompt = await self.prompt(ids)
        for end in ends:
            found = await self.complete(prompt, max_tokens=1, top_k=1, bias={end: _FORBIDDING})
            if found.rows:
                return end
        raise RemoteMalformed(
            f"the server ends its answer, and at none of the {len(ends)} end tokens of the model file"
        )
