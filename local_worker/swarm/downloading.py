"""Downloads pieces, a few at a time, until all are there or nobody is left who has them.

When a span that several peers had a part in is wrong, libtorrent blames all of them, and bans who was blamed often; it
also takes peers behind one address for each other. So a ban names a liar only where nobody else could have had a part.
Otherwise it makes a *suspect*: it is asked no more together with others, but, when nobody else is left, alone, in a
session that nobody comes to. Whom libtorrent bans there has lied.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.layout import piece_name
from dllm_protocol.model_package.torrent import check_spans
from local_worker.packages.package import piece_path
from local_worker.packages.spans import read_spans, store_spans
from local_worker.swarm.errors import FetchStalled, NoSourceLeft, SourcesLied
from local_worker.swarm.partial_files import clear_the_way, give_name, partial_path
from local_worker.swarm.running import Running
from local_worker.swarm.sources import Place, Sources, numeric_place
from local_worker.swarm.span_requests import ask_for_spans
from local_worker.swarm.swarm import Event, Happened, Swarm, Transfer
from local_worker.swarm.watch import PROGRESS_BYTES, Watch
from local_worker.swarm.web_seeding import WebFailure, WebSeeding

PIECES_AT_ONCE: Final = 4
POLL_MS: Final = 100
SLOW_S: Final = 5.0
SLOW_BYTES: Final = 1 << 20
"""Where peers give less in so long, and web seeds are named, these are asked instead."""
QUIET_S: Final = 20.0
"""Where next to nothing comes in so long, or in a quarter of the idle time, and suspects wait, it is their turn."""

LIED: Final = "it sent bytes that the manifest does not name"
QUIET: Final = "it was asked alone, and next to nothing came"
Progress = Callable[[str], None]


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
        self._suspects: dict[str, None] = {}
        """Peers that are asked alone, in this order."""
        self._swarm = swarm
        self._package = package
        self._sources = sources
        self._idle_s = idle_s
        self._progress = progress
        self._running: dict[bytes, Running] = {}
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
        watch = Watch(self._idle_s)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < PIECES_AT_ONCE:
                    self._begin(waiting[0], spans.get(waiting[0].root))
                    waiting.popleft()
                if self._take_events(POLL_MS) | self._take_failures() | self._look():
                    watch.restart()
                self._watch(watch, [*(one.piece for one in self._running.values()), *waiting])
        finally:
            for one in self._running.values():
                self._leave(one)
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
        clear_the_way(partial_path(self._package, piece))
        peers = [numeric_place(*one) for one in self._sources.peers]
        # What a web seed sends without hashes of spans would only be known to be wrong when all of it is there.
        seeds = self._honest_web_seeds() if spans is not None else []
        one = Running(
            piece,
            self._swarm,
            {peer for peer in peers if peer not in self._liars and peer not in self._suspects},
            deque(self._suspects),
            set(seeds),
            spans,
        )
        self._running[piece.root] = one
        if one.peers:
            self._ask_peers(one)
        else:
            self._go_on(one)

    def _honest_web_seeds(self) -> list[str]:
        return [one for one in self._sources.web_seeds if one not in self._liars]

    def _take_events(self, wait_ms: int) -> bool:
        """React to what happened; whether the clock of the idle begins anew, because a source was sorted out."""
        is_any = False
        for event in self._swarm.poll(wait_ms):
            running = self._running.get(event.root)
            if running is not None and running.swarm is self._swarm:
                is_any |= self._take(running, event)
        for one in list(self._running.values()):
            is_any |= self._take_events_apart(one)
        return is_any

    def _take_events_apart(self, one: Running) -> bool:
        """The same, of a piece's own session."""
        if one.swarm is self._swarm:
            return False
        sorted_out = [self._take(one, event) for event in one.swarm.poll(0)]
        return any(sorted_out)

    def _take(self, running: Running, event: Event) -> bool:
        if event.kind is Happened.SPANS:
            self._learn(running, event.spans)
        elif event.kind is Happened.DISK:
            raise OSError(event.number, os.strerror(event.number) if event.number else event.reason)
        elif event.kind is Happened.PEER_BANNED:
            return self._blame(running, event.source)
        return False

    def _blame(self, one: Running, peer: str) -> bool:
        """libtorrent has banned a peer of a piece; whether it is one that we asked."""
        if peer == one.alone:
            one.alone = ""
            return self._refuse(peer, LIED, {peer}, lied=True)
        if one.together == 1 and not self._swarm.may_meet_others:
            return self._refuse(peer, LIED, one.peers, lied=True)
        if peer not in one.peers:
            return False  # it came to us by itself
        one.peers.discard(peer)
        self._suspect(one, peer)
        self._progress(f"asked alone from now on: {peer}: its part of a span may have been wrong")
        return True

    def _suspect(self, one: Running, peer: str) -> None:
        one.suspects.append(peer)
        self._suspects.setdefault(peer)

    def _learn(self, running: Running, spans: bytes) -> None:
        """Keep what peers said of the spans: the next fetch can tell right bytes from holes, and web seeds can help."""
        if running.spans is not None:
            return
        check_spans(running.piece, spans)
        store_spans(self._package, running.piece, spans)
        running.spans = spans
        running.web_seeds |= set(self._honest_web_seeds())

    def _go_on(self, one: Running) -> None:
        """Ask those who are next where peers are no more asked together: web seeds, then suspects."""
        while one.suspects and one.suspects[0] in self._liars:
            one.suspects.popleft()
        if self._can_use_web(one):
            self._ask_web_seeds(one)
        elif one.suspects:
            self._ask_alone(one, one.suspects.popleft())
        else:
            self._give_up(one)

    def _can_use_web(self, one: Running) -> bool:
        return one.spans is not None and not one.web_seeds <= self._liars

    def _ask_peers(self, one: Running) -> None:
        self._leave(one)
        one.together = len(one.peers)
        self._fetch(one, one.peers)

    def _ask_alone(self, one: Running, suspect: str) -> None:
        """Ask one peer in a session of its own, so that nobody else has a part in what comes."""
        self._leave(one)
        one.swarm, one.alone = self._swarm.apart(PIECES_AT_ONCE), suspect
        self._progress(f"asked alone for {_name(one.piece)}: {suspect}")
        self._fetch(one, {suspect})

    def _fetch(self, one: Running, peers: set[str]) -> None:
        folder = partial_path(self._package, one.piece).parent
        one.swarm.fetch(one.piece, folder, one.spans, self._places(peers))
        one.since, one.then_bytes = time.monotonic(), 0

    def _places(self, peers: set[str]) -> list[Place]:
        return [place for place in self._sources.peers if numeric_place(*place) in peers]

    def _ask_web_seeds(self, one: Running) -> None:
        """Leave a piece to web seeds: one of both writes its file at a time."""
        assert one.spans is not None
        self._leave(one)
        one.web = WebSeeding(
            one.piece,
            one.spans,
            [seed for seed in self._honest_web_seeds() if seed in one.web_seeds],
            partial_path(self._package, one.piece),
            self._failures,
            self._swarm.limits.download_bytes_per_s // PIECES_AT_ONCE,
        )

    def _came_less(self, one: Running, transfer: Transfer, least_bytes: int, within_s: float) -> bool:
        """Whether less of a piece came than is worth waiting for, where others could be asked."""
        now = time.monotonic()
        if transfer.is_checking:
            one.since = now
        if now - one.since < within_s:
            return False
        came, one.since, one.then_bytes = transfer.done_bytes - one.then_bytes, now, transfer.done_bytes
        return came < least_bytes

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

    def _look_at_peers(self, one: Running) -> None:
        transfer = one.swarm.transfer(one.piece)
        if transfer.is_complete:
            self._take_events(0)  # who was found to lie until now
            self._leave(one)
            self._finish(one)
        elif self._is_over(one, transfer):
            self._go_on(one)
        elif one.suspects and self._came_less(
            one, transfer, PROGRESS_BYTES, min(QUIET_S, self._idle_s / PIECES_AT_ONCE)
        ):
            self._pass_over(one)
        elif one.spans is None and transfer.peers:
            one.swarm.ask_for_spans(one.piece)

    def _is_over(self, one: Running, transfer: Transfer) -> bool:
        """Whether those who are asked now are no more asked, or web seeds will do better."""
        if not one.alone and not one.peers:
            return True
        return self._can_use_web(one) and self._came_less(one, transfer, SLOW_BYTES, SLOW_S)

    def _pass_over(self, one: Running) -> None:
        """Next to nothing comes, and suspects wait: they are asked before those who are asked now."""
        if one.alone:
            self._refuse(one.alone, QUIET, {one.alone}, lied=False)
            self._suspects[one.alone] = self._suspects.pop(one.alone)  # the last one of all, next time
        for peer in sorted(one.peers):
            self._suspect(one, peer)
        one.peers.clear()
        self._go_on(one)

    def _look_at_web(self, one: Running) -> None:
        assert one.web is not None
        if not one.web.is_over():
            return
        web = one.web
        self._leave(one)
        self._take_failures()
        if web.error is not None:
            raise web.error
        if web.done_bytes == one.piece.size_bytes:
            self._finish(one)
        elif one.peers:
            self._ask_peers(one)
        else:
            self._go_on(one)

    def _finish(self, one: Running) -> None:
        del self._running[one.piece.root]
        hashes = give_name(self._package, one.piece)
        self._done_bytes += one.piece.size_bytes
        if self._swarm.listens_at is not None:
            self._swarm.seed(one.piece, piece_path(self._package, one.piece).parent, hashes.spans())

    def _leave(self, one: Running) -> None:
        """Ask nobody for a piece any more; returns when its file is not written any more."""
        if one.web is not None:
            one.web.stop()
            self._count(one.web.fetched_bytes, one.web.wasted_bytes)
            one.web = None
        elif one.swarm.holds(one.piece):
            transfer = one.swarm.transfer(one.piece)
            self._count(transfer.fetched_bytes, transfer.wasted_bytes)
            one.swarm.let_go(one.piece)
        if one.swarm is not self._swarm:
            one.swarm.close()
            one.swarm, one.alone = self._swarm, ""

    def _count(self, fetched_bytes: int, wasted_bytes: int) -> None:
        self.fetched_bytes += fetched_bytes
        self.wasted_bytes += wasted_bytes

    def _give_up(self, one: Running) -> None:
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

    def _watch(self, watch: Watch, left: Sequence[Piece]) -> None:
        """Say how far it is, ask those again who did not answer, and end what does not go on."""
        if not self._running:
            return
        with_peers = [one for one in self._running.values() if one.web is None]
        transfers = [one.swarm.transfer(one.piece) for one in with_peers]
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
                one.swarm.connect(one.piece, self._places({one.alone} if one.alone else one.peers))
        if now.is_idle:
            names = ", ".join(_name(piece) for piece in left[:8]) + (", …" if len(left) > 8 else "")
            asked = [*(numeric_place(*one) for one in self._sources.peers), *self._sources.web_seeds]
            reasons = dict.fromkeys(asked, "nothing came") | self.refused
            told = "; ".join(f"{one}: {reason}" for one, reason in reasons.items())
            raise FetchStalled(
                f"less than {PROGRESS_BYTES} bytes came in {self._idle_s:.0f} s; missing: {names}; asked: {told}",
                hint="what came is kept: run it again with more sources, or with a longer --idle",
            )


def _name(piece: Piece) -> str:
    return piece_name(piece.kind, piece.index)
