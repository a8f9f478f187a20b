"""One libtorrent session; the only file that knows libtorrent.

It parses what strangers send, in C++: so it runs in processes that hold no keys. Nobody is asked who else has a piece:
no trackers, no DHT, no discovery in the local network, no exchange of peers, unless that is switched on. Peers are who
the caller names, and who comes to the address where we listen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.torrent import (
    HASH_BYTES,
    bencode,
    info_hash,
    span_count,
    torrent_info,
)
from local_worker.swarm.errors import ListenRefused, SwarmMissing
from local_worker.swarm.session_settings import session_settings
from local_worker.swarm.sources import Limits, Place, numeric_place

LISTEN_S: Final = 10.0
FLUSH_S: Final = 10.0
"""So long a disk may take over what has come; what is written later is found when the whole piece is compared."""
_EVERYONE: Final = (("0.0.0.0", "255.255.255.255"), ("::", "ffff:" * 7 + "ffff"))  # noqa: S104 - a range, not an address to bind
_GLOBAL_CLASS: Final = 1
"""The class of peers that the session's rates are for, as a bit."""


class Happened(Enum):
    """What a session tells."""

    PEER_BANNED = "peer banned"
    SPANS = "spans"
    """Peers have told the hashes of a piece's spans."""
    DISK = "disk"
    DAMAGED = "damaged"
    """A piece that was to be served is not what it was."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a piece.

    Attributes:
        source: a peer as ``host:port``.
        reason: why, in libtorrent's or the system's words.
        spans: hashes of a piece's spans, of which libtorrent says that they lead to its root.
        number: of the system's error where a disk failed, else 0.
    """

    kind: Happened
    root: bytes
    source: str = ""
    reason: str = ""
    number: int = 0
    spans: bytes = b""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a piece is.

    Attributes:
        done_bytes: that are on the disk.
        fetched_bytes: that came over the network in this session, whatever they were worth.
        wasted_bytes: of those, which were wrong or came twice.
        peers: connected now.
    """

    done_bytes: int
    fetched_bytes: int
    wasted_bytes: int
    peers: int
    is_checking: bool
    is_complete: bool


def _library() -> Any:
    try:
        import libtorrent  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise SwarmMissing(
            f"libtorrent is not installed, without which nothing can be fetched from others or served: {error}",
            hint="make setup (the extra `worker`); there are wheels for Python 3.11 to 3.13",
        ) from error
    return libtorrent


class Swarm:
    """Pieces on their way, in and out.

    Raises:
        SwarmMissing: libtorrent is not installed.
        ListenRefused: the address is taken, or not this machine's.
    """

    def __init__(self, limits: Limits, listen: Place | None = None, *, finds_peers: bool = False) -> None:
        """
        Args:
            limits: for everything together.
            listen: where peers may come to, by numeric address; port 0 takes a free one. None listens nowhere.
            finds_peers: ask the DHT and exchange peers with peers.
        """
        self._lt = _library()
        self.limits = limits
        self._finds_peers = finds_peers
        self._handles: dict[bytes, Any] = {}
        self._pieces: dict[bytes, Piece] = {}
        self._seeds: set[bytes] = set()
        self._waiting: list[Event] = []
        """What happened while something else was waited for."""
        self._counters: dict[str, int] = {}
        self._session = self._lt.session(session_settings(self._lt, limits, listen, finds_peers), flags=0)
        # Its smart_ban is not used: it bans without a word, and takes peers behind one address for each other.
        if finds_peers:
            self._session.add_extension("ut_pex")
        everyone = self._lt.ip_filter()
        for first, last in _EVERYONE:
            # Otherwise peers in this machine's network, which may be all there are, are under no limit at all.
            everyone.add_rule(first, last, _GLOBAL_CLASS)
        self._session.set_peer_class_filter(everyone)
        self.listens_at: Place | None = self._wait_for_listening(listen) if listen is not None else None

    @property
    def may_meet_others(self) -> bool:
        """Whether anybody but the peers that are named can have a part in what is fetched."""
        return self.listens_at is not None or self._finds_peers

    def apart(self, share: int) -> Swarm:
        """Another session, which nobody comes to and which meets nobody but who is named; to be closed by the caller.

        Args:
            share: it may take in so manieth a part of what this one may.
        """
        rate = self.limits.download_bytes_per_s // share
        return Swarm(replace(self.limits, download_bytes_per_s=rate))

    def fetch(self, piece: Piece, folder: Path, spans: bytes | None, peers: Iterable[Place]) -> None:
        """Begin with a piece, or go on with the bytes of it that lie in the folder, which are checked first.

        Args:
            spans: hashes of its spans, which lead to its root; None asks peers for them.
        """
        parameters = self._parameters(piece, folder, spans)
        parameters.max_connections = -1
        self._add(piece, parameters, self._lt.torrent_flags.update_subscribe)
        self.connect(piece, peers)

    def seed(self, piece: Piece, folder: Path, spans: bytes) -> None:
        """Serve a piece that lies in the folder. Bytes that turn out to be wrong are told and never sent on."""
        flags = self._lt.torrent_flags
        # Upload mode: a damaged piece must not be fetched anew under its name.
        self._add(piece, self._parameters(piece, folder, spans), flags.seed_mode | flags.upload_mode)
        self._seeds.add(piece.root)

    def connect(self, piece: Piece, peers: Iterable[Place]) -> None:
        """Ask these for a piece, if they are not asked already."""
        for place in peers:
            self._handles[piece.root].connect_peer(place)

    def ask_for_spans(self, piece: Piece) -> None:
        """Have it told, by `Happened.SPANS`, what peers have said about the hashes of a piece's spans."""
        self._handles[piece.root].save_resume_data()

    def holds(self, piece: Piece) -> bool:
        """Whether the piece is on its way, in or out."""
        return piece.root in self._handles

    def transfer(self, piece: Piece) -> Transfer:
        """How far a piece is that is being fetched or served."""
        handle = self._handles[piece.root]
        status = handle.status()
        states = self._lt.torrent_status.states
        return Transfer(
            done_bytes=min(status.total_done, piece.size_bytes),
            fetched_bytes=status.total_payload_download,
            wasted_bytes=status.total_failed_bytes + status.total_redundant_bytes,
            peers=status.num_peers,
            is_checking=status.state in (states.checking_files, states.checking_resume_data),
            is_complete=status.is_seeding,
        )

    def uploaded_bytes(self) -> int:
        """Of pieces, to peers, of all that are held now."""
        return sum(handle.status().total_payload_upload for handle in self._handles.values())

    def counters(self) -> Mapping[str, int]:
        """libtorrent's own counters, as of the last `poll`; asks for the next ones."""
        self._session.post_session_stats()
        return self._counters

    def settings(self) -> Mapping[str, Any]:
        """What the session runs under."""
        return dict(self._session.get_settings())

    def let_go(self, piece: Piece) -> None:
        """Have nothing to do with a piece any more; what of it is on the disk stays there.

        Returns when nothing is written to it any more: its file may be another's from now on. What happened to it and
        was not polled yet is forgotten.
        """
        handle = self._handles[piece.root]
        handle.pause()
        handle.flush_cache()
        self._wait_for_flush(piece)
        del self._handles[piece.root]
        del self._pieces[piece.root]
        self._seeds.discard(piece.root)
        self._session.remove_torrent(handle)
        self._waiting = [event for event in self._waiting if event.root != piece.root]

    def _wait_for_flush(self, piece: Piece) -> None:
        end_s = time.monotonic() + FLUSH_S
        while (left_s := end_s - time.monotonic()) > 0:
            self._session.wait_for_alert(int(1000 * left_s) + 1)
            alerts = self._session.pop_alerts()
            self._waiting += self._events(alerts)
            flushed = (one for one in alerts if isinstance(one, self._lt.cache_flushed_alert))
            if any(self._root_of(one) == piece.root for one in flushed):
                return

    def poll(self, timeout_ms: int) -> list[Event]:
        """What happened since; waits for the first so long."""
        if not self._waiting:
            self._session.wait_for_alert(timeout_ms)
        happened = self._waiting + self._events(self._session.pop_alerts())
        self._waiting = []
        return happened

    def _events(self, alerts: Iterable[Any]) -> list[Event]:
        return [event for alert in alerts if (event := self._event(alert)) is not None]

    def close(self) -> None:
        """Leave all swarms; returns when files and sockets are closed."""
        self._handles.clear()
        del self._session

    def _parameters(self, piece: Piece, folder: Path, spans: bytes | None) -> Any:
        info = torrent_info(piece)
        if spans is None:
            # A torrent without its layers is only taken as one that was begun before.
            made = self._lt.read_resume_data(
                bencode(
                    {
                        b"file-format": b"libtorrent resume file",
                        b"file-version": 1,
                        b"info": info,
                        b"info-hash2": info_hash(piece),
                    }
                )
            )
        else:
            layers: dict[bytes, Any] = {piece.root: spans} if spans else {}
            made = self._lt.load_torrent_buffer(bencode({b"info": info, b"piece layers": layers}))
        made.save_path = str(folder)
        made.storage_mode = self._lt.storage_mode_t.storage_mode_sparse
        return made

    def _add(self, piece: Piece, parameters: Any, flags: Any) -> None:
        known = self._lt.torrent_flags
        if not self._finds_peers:
            flags |= known.disable_dht | known.disable_pex
        parameters.flags = flags | known.disable_lsd | known.duplicate_is_error
        self._handles[piece.root] = self._session.add_torrent(parameters)
        self._pieces[piece.root] = piece

    def _event(self, alert: Any) -> Event | None:
        lt = self._lt
        if isinstance(alert, lt.session_stats_alert):
            self._counters = dict(alert.values)
            return None
        root = self._root_of(alert)
        if root is None:
            return None
        if isinstance(alert, lt.save_resume_data_alert):
            spans = known_spans(lt.write_resume_data(alert.params), self._pieces[root])
            return Event(Happened.SPANS, root, spans=spans) if spans else None
        if isinstance(alert, lt.peer_ban_alert):
            return Event(Happened.PEER_BANNED, root, source=numeric_place(*alert.endpoint))
        if isinstance(alert, lt.file_error_alert):
            is_system = alert.error.category().name() in ("system", "generic")
            number = alert.error.value() if is_system else 0
            return Event(Happened.DISK, root, reason=alert.error.message(), number=number)
        if root in self._seeds:
            return self._event_of_seed(alert, root)
        if isinstance(alert, lt.torrent_error_alert):
            return Event(Happened.DISK, root, reason=alert.error.message())
        return None

    def _event_of_seed(self, alert: Any, root: bytes) -> Event | None:
        lt = self._lt
        if isinstance(alert, lt.torrent_error_alert):
            return Event(Happened.DAMAGED, root, reason=alert.error.message())
        # A piece that was to be sent did not fit its hash: libtorrent looks at all of them then.
        states = lt.torrent_status.states
        if isinstance(alert, lt.state_changed_alert) and alert.state in (
            states.checking_files,
            states.downloading,
        ):
            return Event(Happened.DAMAGED, root, reason="it is not what the manifest says")
        return None

    def _root_of(self, alert: Any) -> bytes | None:
        """The piece that an alert is about; the torrent's name is its root."""
        if not isinstance(alert, self._lt.torrent_alert):
            return None
        name = alert.torrent_name
        root = bytes.fromhex(name) if len(name) == 64 else b""
        return root if root in self._handles else None

    def _wait_for_listening(self, listen: Place) -> Place:
        wanted = numeric_place(*listen)
        for _ in range(int(LISTEN_S)):
            self._session.wait_for_alert(1000)
            for alert in self._session.pop_alerts():
                if isinstance(alert, self._lt.listen_succeeded_alert):
                    return alert.address, alert.port
                if isinstance(alert, self._lt.listen_failed_alert):
                    raise ListenRefused(
                        f"nobody can listen at {wanted}: {alert.error.message()}",
                        hint="name another with --listen",
                    )
        raise ListenRefused(f"nothing listens at {wanted} after {LISTEN_S:.0f} s")


def known_spans(resume: Mapping[bytes, Any], piece: Piece) -> bytes:
    """The hashes of a piece's spans out of what a session keeps for its next run; none if one is not known yet.

    It has the known nodes of the piece's tree, root first and level by level, and a sign for each node whether it is
    among them.
    """
    trees = resume.get(b"trees") or [{}]
    mask, hashes = trees[0].get(b"mask", b""), trees[0].get(b"hashes", b"")
    count = span_count(piece.size_bytes)
    first = (1 << (count - 1).bit_length()) - 1
    if count == 1 or mask[first : first + count] != b"1" * count:
        return b""
    before = mask[:first].count(b"1")
    return bytes(hashes[HASH_BYTES * before : HASH_BYTES * (before + count)])
