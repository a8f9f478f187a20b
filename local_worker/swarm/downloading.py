"""Downloads pieces, a few at a time, until all are there or nobody is left who has them."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import piece_name
from dllm_protocol.model_package.torrent import check_spans
from local_worker.packages.disk import sync_folder
from local_worker.packages.package import piece_path
from local_worker.packages.spans import hash_file, is_piece, read_spans, store_spans
from local_worker.swarm.errors import FetchStalled, NoSourceLeft, SourcesLied
from local_worker.swarm.sources import Sources, numeric_place
from local_worker.swarm.span_requests import ask_for_spans
from local_worker.swarm.swarm import Event, Happened, Swarm, Transfer
from local_worker.swarm.web_seeding import WebFailure, WebSeeding

FETCHING_FOLDER: Final = "fetching"
PIECES_AT_ONCE: Final = 4
POLL_MS: Final = 100
SLOW_S: Final = 5.0
SLOW_BYTES: Final = 1 << 20
"""Where peers give less in so long, and web seeds are named, these are asked instead."""
RECONNECT_S: Final = 5.0
PROGRESS_S: Final = 1.0
PROGRESS_BYTES: Final = 64 * 1024
"""So much has to come within the idle time, or it counts as nothing: a trickle would hold us for ever."""

LIED: Final = "it sent bytes that the manifest does not name"
Progress = Callable[[str], None]


def partial_path(package: Path, piece: Piece) -> Path:
    """Where a piece lies until all of it is there."""
    return package / FETCHING_FOLDER / piece.root.hex()


@dataclass(slots=True)
class _Running:
    piece: Piece
    peers: set[str]
    web_seeds: set[str]
    spans: bytes | None
    """Hashes of its spans, without which web seeds are not asked."""
    web: WebSeeding | None = None
    """Where web seeds are asked and not peers."""
    since: float = 0.0
    then_bytes: int = 0
    """How much was there at that time."""


class Downloading:
    """Takes pieces from their sources, compares each whole with the manifest, and gives it its name."""

    def __init__(
        self, swarm: Swarm, package: Path, sources: Sources, idle_s: float, progress: Progress
    ) -> None:
        self.fetched_bytes = 0
        self.wasted_bytes = 0
        self.refused: dict[str, str] = {}
        """Sources that sent something wrong, or had nothing to send, with the reason."""
        self._liars: set[str] = set()
        self._swarm = swarm
        self._package = package
        self._sources = sources
        self._idle_s = idle_s
        self._progress = progress
        self._running: dict[bytes, _Running] = {}
        self._failures: SimpleQueue[WebFailure] = SimpleQueue()
        self._done_bytes = 0

    def run(self, pieces: Sequence[Piece]) -> None:
        """Returns when all pieces have their names.

        Raises:
            NoSourceLeft, SourcesLied, FetchStalled: naming pieces and sources.
            PieceRefused: this machine does not keep what came.
            OSError: the disk's.
        """
        if not pieces:
            return
        spans = self._spans_of(pieces)
        waiting = deque(pieces)
        watch = _Watch(self._idle_s)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < PIECES_AT_ONCE:
                    self._begin(waiting[0], spans.get(waiting[0].root))
                    waiting.popleft()
                for event in self._swarm.poll(POLL_MS):
                    if self._take(event):
                        watch.restart()
                if self._take_failures() | self._look():
                    watch.restart()
                self._watch(watch, [*(one.piece for one in self._running.values()), *waiting])
        finally:
            for one in self._running.values():
                if one.web is not None:
                    self._leave_web_seeds(one)
                elif self._swarm.holds(one.piece):
                    self._leave_peers(one)
            self._running.clear()

    def _spans_of(self, pieces: Sequence[Piece]) -> dict[bytes, bytes]:
        """What is known of the pieces' spans: by their size, from an earlier fetch, from a web seed."""
        known = {
            piece.root: spans for piece in pieces if (spans := read_spans(self._package, piece)) is not None
        }
        unknown = [piece for piece in pieces if piece.root not in known]
        found = ask_for_spans(unknown, self._sources.web_seeds)
        self.refused |= found.failures
        self._liars |= found.liars
        for piece in unknown:
            if piece.root in found.spans:
                known[piece.root] = found.spans[piece.root]
                store_spans(self._package, piece, known[piece.root])
        return known

    def _begin(self, piece: Piece, spans: bytes | None) -> None:
        path = partial_path(self._package, piece)
        if _is_in_the_way(path):
            path.unlink()
        peers = [one for one in self._sources.peers if numeric_place(*one) not in self._liars]
        # What a web seed sends without hashes of spans would only be known to be wrong when all of it is there.
        seeds = self._honest_web_seeds() if spans is not None else []
        one = _Running(piece, {numeric_place(*place) for place in peers}, set(seeds), spans)
        if peers or not seeds:
            self._ask_peers(one)
        else:
            self._ask_web_seeds(one)
        self._running[piece.root] = one

    def _honest_web_seeds(self) -> list[str]:
        return [one for one in self._sources.web_seeds if one not in self._liars]

    def _take(self, event: Event) -> bool:
        """React to what happened; whether the clock of the idle begins anew, because a source was sorted out."""
        running = self._running.get(event.root)
        if running is None:
            return False
        if event.kind is Happened.SPANS:
            self._learn(running, event.spans)
            return False
        if event.kind is Happened.DISK:
            raise OSError(event.number, os.strerror(event.number) if event.number else event.reason)
        if event.kind is Happened.PEER_BANNED:
            return self._refuse(event.source, LIED, running.peers, lied=True)
        return False

    def _learn(self, running: _Running, spans: bytes) -> None:
        """Keep what peers said of the spans: the next fetch can tell right bytes from holes, and web seeds can help."""
        if running.spans is not None:
            return
        check_spans(running.piece, spans)
        store_spans(self._package, running.piece, spans)
        running.spans = spans
        running.web_seeds |= set(self._honest_web_seeds())

    def _ask_peers(self, one: _Running) -> None:
        peers = [place for place in self._sources.peers if numeric_place(*place) in one.peers]
        self._swarm.fetch(one.piece, partial_path(self._package, one.piece).parent, one.spans, peers)
        one.since, one.then_bytes = time.monotonic(), 0

    def _ask_web_seeds(self, one: _Running) -> None:
        """Leave a piece to web seeds: one of both writes its file at a time."""
        assert one.spans is not None
        if self._swarm.holds(one.piece):
            self._leave_peers(one)
        one.web = WebSeeding(
            one.piece,
            one.spans,
            [seed for seed in self._honest_web_seeds() if seed in one.web_seeds],
            partial_path(self._package, one.piece),
            self._failures,
            self._swarm.limits.download_bytes_per_s // PIECES_AT_ONCE,
        )

    def _is_slow(self, one: _Running, transfer: Transfer) -> bool:
        """Whether peers gave less of a piece than is worth waiting for, where web seeds could help."""
        now = time.monotonic()
        if transfer.is_checking:
            one.since = now
        if now - one.since < SLOW_S:
            return False
        came, one.since, one.then_bytes = transfer.done_bytes - one.then_bytes, now, transfer.done_bytes
        return came < SLOW_BYTES

    def _take_failures(self) -> bool:
        """Whether a web seed was sorted out."""
        is_any = False
        while not self._failures.empty():
            failure = self._failures.get()
            running = self._running.get(failure.root)
            of_piece = running.web_seeds if running is not None else set()
            is_any |= self._refuse(failure.web_seed, failure.reason, of_piece, lied=failure.lied)
        return is_any

    def _refuse(self, source: str, reason: str, of_piece: set[str], *, lied: bool) -> bool:
        if source not in of_piece:
            return False  # it came to us by itself
        of_piece.discard(source)
        self.refused[source] = reason
        if lied:
            self._liars.add(source)
        self._progress(f"no longer asked: {source}: {reason}")
        return True

    def _look(self) -> bool:
        """Whether a piece was finished."""
        before = len(self._running)
        for one in list(self._running.values()):
            if one.web is not None:
                self._look_at_web(one)
            else:
                self._look_at_peers(one)
        return len(self._running) < before

    def _look_at_peers(self, one: _Running) -> None:
        transfer = self._swarm.transfer(one.piece)
        can_use_web = one.spans is not None and bool(one.web_seeds)
        if transfer.is_complete:
            for event in self._swarm.poll(0):  # who was found to lie until now
                self._take(event)
            self._leave_peers(one)
            self._finish(one)
        elif can_use_web and (not one.peers or self._is_slow(one, transfer)):
            self._ask_web_seeds(one)
        elif not one.peers and not can_use_web:
            self._give_up(one)
        elif one.spans is None and transfer.peers:
            self._swarm.ask_for_spans(one.piece)

    def _look_at_web(self, one: _Running) -> None:
        assert one.web is not None
        if not one.web.is_over():
            return
        web = one.web
        self._leave_web_seeds(one)
        self._take_failures()
        if web.error is not None:
            raise web.error
        if web.done_bytes == one.piece.size_bytes:
            self._finish(one)
        elif one.peers:
            self._ask_peers(one)
        else:
            self._give_up(one)

    def _finish(self, one: _Running) -> None:
        """A piece is whole by libtorrent's word: compare it by our own, then give it its name."""
        piece, partial = one.piece, partial_path(self._package, one.piece)
        del self._running[piece.root]
        hashes = hash_file(partial, piece)
        if hashes is None or not is_piece(hashes, piece):
            partial.unlink(missing_ok=True)
            raise PieceRefused(
                f"piece {_name(piece)} came whole and is not what the manifest says",
                hint="the disk or the memory of this machine may be at fault; try again",
            )
        descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        store_spans(self._package, piece, hashes.spans())
        path = piece_path(self._package, piece)
        partial.replace(path)
        sync_folder(path.parent)
        self._done_bytes += piece.size_bytes
        if self._swarm.listens_at is not None:
            self._swarm.seed(piece, path.parent, hashes.spans())

    def _leave_peers(self, one: _Running) -> None:
        transfer = self._swarm.transfer(one.piece)
        self.fetched_bytes += transfer.fetched_bytes
        self.wasted_bytes += transfer.wasted_bytes
        self._swarm.let_go(one.piece)

    def _leave_web_seeds(self, one: _Running) -> None:
        assert one.web is not None
        one.web.stop()
        self.fetched_bytes += one.web.fetched_bytes
        self.wasted_bytes += one.web.wasted_bytes
        one.web = None

    def _give_up(self, one: _Running) -> None:
        told = "; ".join(f"{source}: {reason}" for source, reason in sorted(self.refused.items()))
        what = f"no source is left for piece {_name(one.piece)} ({one.piece.root.hex()}): {told or 'none was given'}"
        if self.refused and self.refused.keys() <= self._liars:
            raise SourcesLied(what, hint="name another source with --peer or --web-seed")
        hint = "name another source with --peer or --web-seed"
        if one.spans is None and self._sources.web_seeds:
            hint = (
                f"the web seeds have no spans/{one.piece.root.hex()}: serve the whole folder of the package"
            )
        raise NoSourceLeft(what, hint=hint)

    def _watch(self, watch: _Watch, left: Sequence[Piece]) -> None:
        """Say how far it is, ask those again who did not answer, and end what does not go on."""
        if not self._running:
            return
        with_peers = [one for one in self._running.values() if one.web is None]
        transfers = [self._swarm.transfer(one.piece) for one in with_peers]
        done = self._done_bytes + sum(transfer.done_bytes for transfer in transfers)
        done += sum(one.web.done_bytes for one in self._running.values() if one.web is not None)
        now = watch.look(done, is_busy=any(transfer.is_checking for transfer in transfers))
        if now.is_time_to_tell:
            names = ", ".join(_name(one.piece) for one in self._running.values())
            peers = sum(transfer.peers for transfer in transfers)
            self._progress(
                f"fetching {names}: {done / 1e6:.1f} MB so far, {peers} connections, {len(left)} pieces left"
            )
        if now.is_time_to_connect:
            for one in with_peers:
                self._swarm.connect(
                    one.piece, (place for place in self._sources.peers if numeric_place(*place) in one.peers)
                )
        if now.is_idle:
            names = ", ".join(_name(piece) for piece in left[:8]) + (", …" if len(left) > 8 else "")
            asked = [*(numeric_place(*one) for one in self._sources.peers), *self._sources.web_seeds]
            reasons = dict.fromkeys(asked, "nothing came") | self.refused
            told = "; ".join(f"{one}: {reason}" for one, reason in reasons.items())
            raise FetchStalled(
                f"less than {PROGRESS_BYTES} bytes came in {self._idle_s:.0f} s; missing: {names}; asked: {told}",
                hint="what came is kept: run it again with more sources, or with a longer --idle",
            )


@dataclass(frozen=True, slots=True)
class _Now:
    is_time_to_tell: bool
    is_time_to_connect: bool
    is_idle: bool


class _Watch:
    """When something came last, when something was said last."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._most = self._marked = 0
        self._since = self._told = self._connected = time.monotonic()

    def restart(self) -> None:
        """As if something had come just now."""
        self._since = time.monotonic()

    def look(self, done: int, *, is_busy: bool) -> _Now:
        """
        Args:
            done: bytes that are there.
            is_busy: whether this machine itself is at work, so that nothing can come.
        """
        now = time.monotonic()
        self._most = max(self._most, done)
        if is_busy or self._most >= self._marked + PROGRESS_BYTES:
            self._marked, self._since = self._most, now
        tell, connect = now - self._told >= PROGRESS_S, now - self._connected >= RECONNECT_S
        self._told = now if tell else self._told
        self._connected = now if connect else self._connected
        return _Now(tell, connect, now - self._since >= self._idle_s)


def _is_in_the_way(path: Path) -> bool:
    """Anything that is no ordinary file of ours alone: a link could lead out of the package."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(status.st_mode) or status.st_nlink != 1


def _name(piece: Piece) -> str:
    return piece_name(piece.kind, piece.index)
