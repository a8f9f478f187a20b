"""Asks an engine process which tokens a file has; the file may be without tensors."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from local_worker.engine.errors import EngineGone, ModelRefused
from local_worker.engine.frames import FrameReader, FrameRefused, Kind
from local_worker.engine.messages import EngineVocabulary, read_failure, read_vocabulary
from local_worker.engine.process import EngineProcess

_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 5.0
_READ_BYTES = 1 << 20


async def vocabulary_of(path: Path, log_path: Path) -> EngineVocabulary:
    """Every token's bytes and attributes.

    Raises:
        ModelRefused: the engine says why.
        EngineGone: it died over the file, spoke nonsense, or took too long.
    """
    process, connection = await EngineProcess.start(path, ("--vocabulary-only",), log_path)
    try:
        with connection:
            async with asyncio.timeout(_TIMEOUT_S):
                found = await _first_answer(connection)
    except (TimeoutError, FrameRefused) as error:
        raise EngineGone(
            f"{path.name}: the engine gave no vocabulary", hint=f"its last words are in {log_path}"
        ) from error
    finally:
        ended = await process.end(_END_TIMEOUT_S)
    if found is None:
        raise EngineGone(
            f"the engine ended over {path.name}: {ended}", hint=f"its last words are in {log_path}"
        )
    return found


async def _first_answer(connection: socket.socket) -> EngineVocabulary | None:
    loop = asyncio.get_running_loop()
    reader = FrameReader()
    while data := await loop.sock_recv(connection, _READ_BYTES):
        for kind, _, body in reader.feed(data):
            if kind is Kind.FAILED:
                message, _, hint = read_failure(body)[2].partition("\n")
                raise ModelRefused(message, hint=hint)
            if kind is not Kind.PIECES:
                raise FrameRefused(f"a {kind.name} where a vocabulary was asked for")
            return read_vocabulary(body)
    return None
