"""Takes spans of a piece from web seeds, one by one, each compared with its hash before it is believed.

libtorrent has web seeds of its own. They are not used: in the version that we pin, one that leads elsewhere or is
banned ended the process now and then, and once a file was called whole that was not.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import aiohttp

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.torrent import HASH_BYTES, PieceHashes, span_bytes, span_count
from local_worker.packages.package import PIECES_FOLDER
from local_worker.swarm.span_requests import REDIRECTS_MAX

CONNECT_S: Final = 10.0
READ_S: Final = 20.0
TRIES_MAX: Final = 3
RETRY_S: Final = 1.0
PORTION_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class WebFailure:
    """A web seed that is asked no more for a piece.

    Attributes:
        reason: in words of ours.
        lied: it sent bytes that do not fit their hash.
    """

    root: bytes
    web_seed: str
    reason: str
    lied: bool


class WebSeeding:
    """One piece from web seeds, in a thread of its own; ends by itself when nothing is missing or nobody is left."""

    def __init__(
        self,
        piece: Piece,
        spans: bytes,
        web_seeds: Sequence[str],
        path: Path,
        failures: SimpleQueue[WebFailure],
        bytes_per_s: int,
    ) -> None:
        """
        Args:
            spans: the hashes of its spans, which lead to its root; none of a piece of one span.
            path: the file that is filled; spans in it that are right already are kept.
            failures: where it is told who is asked no more.
            bytes_per_s: no more than that; 0 is without limit.
        """
        self.fetched_bytes = 0
        self.wasted_bytes = 0
        self.done_bytes = 0
        self.error: OSError | None = None
        """What the disk said."""
        self._piece = piece
        self._hashes = [spans[at : at + HASH_BYTES] for at in range(0, len(spans), HASH_BYTES)] or [
            piece.root
        ]
        self._span_bytes = span_bytes(piece.size_bytes)
        self._web_seeds = list(web_seeds)
        self._path = path
        self._failures = failures
        self._bytes_per_s = bytes_per_s
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"web seeds of {piece.root.hex()[:8]}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more; returns when the file is closed."""
        self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join()
        self._loop.close()

    def is_over(self) -> bool:
        """Whether it has ended by itself: all is there, or nobody is left."""
        return not self._thread.is_alive()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._ask_all())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            return
        except OSError as error:
            self.error = error

    async def _ask_all(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, self._piece.size_bytes)
            await self._fill(descriptor)
        finally:
            os.close(descriptor)

    async def _fill(self, descriptor: int) -> None:
        missing = [index for index in range(len(self._hashes)) if not await self._has(descriptor, index)]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        async with aiohttp.ClientSession(timeout=timeout, skip_auto_headers=("User-Agent",)) as session:
            for web_seed in self._web_seeds:
                try:
                    while missing:
                        await self._take(session, web_seed, descriptor, missing[0])
                        del missing[0]
                    return
                except _Refused as refused:
                    root = self._piece.root
                    self._failures.put(WebFailure(root, web_seed, refused.reason, refused.lied))

    async def _has(self, descriptor: int, index: int) -> bool:
        first, size = self._range(index)
        is_there = self._fits(index, os.pread(descriptor, size, first))
        self.done_bytes += size if is_there else 0
        await asyncio.sleep(0)  # the moment to be told to stop
        return is_there

    def _range(self, index: int) -> tuple[int, int]:
        """Where a span begins, and how long it is."""
        first = index * self._span_bytes
        return first, min(self._span_bytes, self._piece.size_bytes - first)

    async def _take(self, session: aiohttp.ClientSession, web_seed: str, descriptor: int, index: int) -> None:
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                data = await self._request(session, web_seed, index)
                break
            except (aiohttp.ClientError, ConnectionError, TimeoutError, ValueError) as error:
                if not tries_left:
                    raise _Refused(f"it cannot be reached: {type(error).__name__}") from error
            await asyncio.sleep(RETRY_S)
        if not self._fits(index, data):
            self.wasted_bytes += len(data)
            raise _Refused("it sent bytes that the manifest does not name", lied=True)
        first, at = self._range(index)[0], 0
        while at < len(data):
            at += os.pwrite(descriptor, data[at:], first + at)
        self.done_bytes += len(data)
        if self._bytes_per_s:
            await asyncio.sleep(len(data) / self._bytes_per_s)

    async def _request(self, session: aiohttp.ClientSession, web_seed: str, index: int) -> bytes:
        first, size = self._range(index)
        wanted = {"Range": f"bytes={first}-{first + size - 1}", "Accept-Encoding": "identity"}
        address = f"{web_seed}{PIECES_FOLDER}/{self._piece.root.hex()}"
        async with session.get(address, headers=wanted, max_redirects=REDIRECTS_MAX) as answer:
            if answer.status not in (200, 206):
                raise _Refused(f"it answers {answer.status} to pieces/{self._piece.root.hex()}")
            if answer.status == 200 and size != self._piece.size_bytes:
                raise _Refused("it does not give parts of files (HTTP ranges)")
            data = bytearray()
            while len(data) <= size and (portion := await answer.content.read(PORTION_BYTES)):
                data += portion
                self.fetched_bytes += len(portion)
        return bytes(data)

    def _fits(self, index: int, data: bytes) -> bool:
        """Is it the span that its hash names? The last one is as long as what is left."""
        if len(data) != self._range(index)[1]:
            return False
        # As a part of a piece of several spans, whatever its own size.
        hashes = PieceHashes(self._piece.size_bytes)
        hashes.update(data)
        found = hashes.spans() if span_count(self._piece.size_bytes) > 1 else hashes.root()
        return found == self._hashes[index]


class _Refused(Exception):
    """A web seed is not asked any more for this piece."""

    def __init__(self, reason: str, *, lied: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lied = lied
