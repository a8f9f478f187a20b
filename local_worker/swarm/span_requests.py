"""Asks web seeds for the hashes of spans. Peers are asked by libtorrent itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.torrent import HASH_BYTES, check_spans, span_count
from local_worker.packages.spans import SPANS_FOLDER

AT_ONCE: Final = 4
ANSWER_S: Final = 20.0
REDIRECTS_MAX: Final = 3


@dataclass(slots=True)
class SpansFound:
    """What web seeds said.

    Attributes:
        spans: by the root of the piece; each leads to that root.
        failures: by web seed, its last one in words of ours.
        liars: web seeds that sent something else.
    """

    spans: dict[bytes, bytes] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    liars: set[str] = field(default_factory=set)


def ask_for_spans(pieces: Sequence[Piece], web_seeds: Sequence[str]) -> SpansFound:
    """The hashes of all spans of these pieces, from whichever web seed has them."""
    found = SpansFound()
    if pieces and web_seeds:
        asyncio.run(_ask(pieces, web_seeds, found))
    return found


async def _ask(pieces: Sequence[Piece], web_seeds: Sequence[str], found: SpansFound) -> None:
    one_at_a_time = asyncio.Semaphore(AT_ONCE)
    unreachable: set[str] = set()
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    # Says no more of this machine than a request must.
    quiet = ("User-Agent",)
    async with aiohttp.ClientSession(timeout=timeout, skip_auto_headers=quiet) as session:

        async def of_piece(piece: Piece) -> None:
            async with one_at_a_time:
                for seed in web_seeds:
                    if seed in unreachable or seed in found.liars:
                        continue
                    try:
                        found.spans[piece.root] = await _request(session, seed, piece)
                        return
                    except PieceRefused as error:
                        found.liars.add(seed)
                        found.failures[seed] = error.message
                    except _NotThere as error:
                        found.failures[seed] = str(error)
                    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                        unreachable.add(seed)
                        found.failures[seed] = type(error).__name__

        await asyncio.gather(*(of_piece(piece) for piece in pieces))


class _NotThere(Exception):
    """A web seed that answers, but has no hashes of spans."""


async def _request(session: aiohttp.ClientSession, seed: str, piece: Piece) -> bytes:
    wanted = HASH_BYTES * span_count(piece.size_bytes)
    address = f"{seed}{SPANS_FOLDER}/{piece.root.hex()}"
    async with session.get(address, max_redirects=REDIRECTS_MAX) as answer:
        if answer.status != 200:
            raise _NotThere(f"it answers {answer.status} to spans/{piece.root.hex()}")
        spans = bytearray()
        while len(spans) <= wanted and (data := await answer.content.read(wanted + 1 - len(spans))):
            spans += data
    check_spans(piece, bytes(spans))
    return bytes(spans)
