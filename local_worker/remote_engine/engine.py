"""An engine whose rows are made by a server that somebody runs already: vLLM, llama-server, and their like.

The vocabulary and the tokenizer are those of a model file on this machine, read in an engine process that loads no
weights. The session protocol stays as it is: a client samples by itself from the logits of each row, and the server
is only asked for those. Nothing that a session does ends the engine; it ends with its process, or when the server
turns out to serve something else than it did when it was examined.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from local_worker.engine import errors
from local_worker.engine.client import Engine
from local_worker.engine.lane import Lane
from local_worker.engine.messages import EngineInfo, EngineVocabulary
from local_worker.remote_engine.asking import Asker
from local_worker.remote_engine.errors import RemoteModelChanged
from local_worker.remote_engine.examining import examine
from local_worker.remote_engine.http import RemoteHttp
from local_worker.remote_engine.options import RemoteServer
from local_worker.remote_engine.sequence import RemoteSequence
from local_worker.remote_engine.words import Words

_SPARE_CONNECTIONS = 4


class RemoteEngine:
    """A server and the model file that it serves; made by `start`."""

    def __init__(
        self, tokenizer: Engine, vocabulary: EngineVocabulary, asker: Asker, info: EngineInfo
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self.asker = asker
        self.info = info
        self._sequences: set[RemoteSequence] = set()
        self._calls = 0
        self._reason = ""
        self._ending = asyncio.create_task(self._end_with_tokenizer())

    @classmethod
    async def start(
        cls, model_path: Path, server: RemoteServer, *, context_rows: int, sequences: int, log_path: Path
    ) -> RemoteEngine:
        """Read the model file's vocabulary, examine the server, and hold the two against each other.

        Raises:
            ModelRefused: the file is no model; or as `RemoteUnfit`, the server is not one that can be served from.
            EngineGone: the server does not answer, or not as it should; trying again may help.
        """
        tokenizer = await Engine.start(
            model_path, context_rows=context_rows, sequences=1, threads=1, log_path=log_path, words_only=True
        )
        http = RemoteHttp(server, 2 * sequences + _SPARE_CONNECTIONS)
        try:
            vocabulary = await tokenizer.vocabulary()
            words = await asyncio.to_thread(Words, vocabulary)
            asker, remote_rows = await examine(http, words, tokenizer)
        except (errors.EngineBusy, errors.DecodeFailed, errors.ContextFull) as error:
            await _close(http, tokenizer)
            raise errors.EngineGone(error.message, hint=error.hint) from error
        except BaseException:
            await _close(http, tokenizer)
            raise
        # The server makes a token behind the last row, which needs room there.
        fitting = min(context_rows, remote_rows - 1) if remote_rows else context_rows
        info = replace(tokenizer.info, context_rows=fitting, sequences=sequences)
        return cls(tokenizer, vocabulary, asker, info)

    @property
    def alive(self) -> bool:
        """False once it ended."""
        return self._tokenizer.alive and not self._reason

    @property
    def max_top_k(self) -> int:
        """Most logits of a row that the server gives."""
        return self.asker.dialect.max_top_k

    @property
    def waiting_calls(self) -> int:
        """Decodes under way."""
        return self._calls

    @property
    def free_sequences(self) -> int:
        """How many more can be opened."""
        return self.info.sequences - len(self._sequences)

    def open_sequence(self) -> RemoteSequence:
        """An empty sequence of one's own.

        Raises:
            EngineFull, EngineGone
        """
        self.check_alive()
        if not self.free_sequences:
            raise errors.EngineFull(f"all {self.info.sequences} sequences are open", hint="close one first")
        sequence = RemoteSequence(self)
        self._sequences.add(sequence)
        return sequence

    def give_back(self, sequence: RemoteSequence) -> None:
        """A sequence was closed."""
        self._sequences.discard(sequence)

    def take_lane(
        self, connection: socket.socket, state: bytes, *, form: int, is_dialler: bool
    ) -> Lane | None:
        """A server serves whole models: never."""
        connection.close()
        return None

    async def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, by the model file's own tokenizer.

        Raises:
            DecodeRefused, EngineGone
        """
        return await self._tokenizer.tokenize(text)

    async def vocabulary(self) -> EngineVocabulary:
        """Every token's bytes and attributes."""
        return self._vocabulary

    async def close(self) -> None:
        """End it; calls that wait fail."""
        self._reason = self._reason or "it was closed"
        await self._tokenizer.close()
        await self.wait_closed()

    async def wait_closed(self) -> str:
        """Return when it has ended: why, in words."""
        await asyncio.shield(self._ending)
        return self._reason

    def check_alive(self) -> None:
        """Refuse to go on once it ended.

        Raises:
            EngineGone
        """
        if not self.alive:
            raise errors.EngineGone(f"the engine has ended: {self._reason or 'its tokenizer ended'}")

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Count a call while it waits."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def note_failure(self, error: errors.EngineGone) -> None:
        """A call failed; where the server serves another model now, nothing here holds any more."""
        if isinstance(error, RemoteModelChanged) and not self._reason:
            self._reason = error.message
            self._closing = asyncio.create_task(self._tokenizer.close())

    async def _end_with_tokenizer(self) -> None:
        ended = await self._tokenizer.wait_closed()
        self._reason = self._reason or f"its tokenizer ended: {ended}"
        for sequence in list(self._sequences):
            sequence.close()
        await self.asker.http.close()


async def _close(http: RemoteHttp, tokenizer: Engine) -> None:
    await http.close()
    await tokenizer.close()
