"""Real libtorrent sessions over loopback, and a web server that can be told to misbehave."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dllm_protocol.model_manifest import Manifest, Piece
from dllm_protocol.model_package.chunk import pieces_of_chunk
from local_worker.packages.package import MANIFEST_FILE, PIECES_FOLDER, load_package, piece_path
from local_worker.swarm.fetching import Fetched, fetch
from local_worker.swarm.seeding import Seeder
from local_worker.swarm.sources import Limits, Place, Sources
from local_worker.swarm.swarm import Swarm

pytest.importorskip("libtorrent", reason="needs libtorrent")

LOOPBACK = ("127.0.0.1", 0)
NO_LIMITS = Limits()
IDLE_S = 20.0
"""Far beyond what anything here takes; what is to stall says less."""


@dataclass
class Made:
    """A package that has everything.

    Attributes:
        is_tied: whether its embedding is its output matrix too, as whoever wrote the model knows.
    """

    folder: Path
    manifest: Manifest
    is_tied: bool = False

    def piece(self, kind: int, index: int = 0) -> Piece:
        """One of its pieces."""
        (found,) = (one for one in self.manifest.pieces if (one.kind, one.index) == (kind, index))
        return found

    def roots(self, first: int, end: int) -> set[str]:
        """The names of the pieces that a chunk of these layers is made of."""
        wanted = pieces_of_chunk(self.manifest.layers, first, end, is_tied=self.is_tied)
        return {self.piece(*key).root.hex() for key in wanted}

    def bytes_of(self, first: int, end: int) -> int:
        """How large those are together."""
        return sum(one.size_bytes for one in self.manifest.pieces if one.root.hex() in self.roots(first, end))


def held(package: Path) -> set[str]:
    """The names of the pieces that a folder has."""
    folder = package / PIECES_FOLDER
    return {one.name for one in folder.iterdir()} if folder.is_dir() else set()


@contextmanager
def a_swarm(limits: Limits = NO_LIMITS, listen: Place | None = None) -> Iterator[Swarm]:
    """A session for as long as it is needed."""
    with closing(Swarm(limits, listen)) as swarm:
        yield swarm


@contextmanager
def seeding(package: Path, limits: Limits = NO_LIMITS) -> Iterator[tuple[Swarm, Place]]:
    """A session that serves a package, and where."""
    with a_swarm(limits, LOOPBACK) as swarm:
        Seeder(swarm, [package], lambda _: None).look()
        assert swarm.listens_at is not None
        yield swarm, swarm.listens_at


def get(
    made: Made,
    layers: tuple[int, int],
    out: Path,
    *,
    peers: Sequence[Place] = (),
    web_seeds: Sequence[str] = (),
    idle_s: float = IDLE_S,
    said: list[str] | None = None,
) -> Fetched:
    """Fetch some layers in a session of its own."""
    said = [] if said is None else said
    sources = Sources(tuple(peers), tuple(web_seeds))
    with a_swarm() as swarm:
        return fetch(swarm, made.manifest, *layers, out, sources, idle_s, said.append)


def part_of(made: Made, first: int, end: int, folder: Path) -> Path:
    """A package with the pieces of some layers only."""
    (folder / PIECES_FOLDER).mkdir(parents=True)
    for root in made.roots(first, end):
        shutil.copyfile(made.folder / PIECES_FOLDER / root, folder / PIECES_FOLDER / root)
    shutil.copyfile(made.folder / MANIFEST_FILE, folder / MANIFEST_FILE)
    assert load_package(folder) == made.manifest
    return folder


def overwritten(package: Path, piece: Piece, at: int) -> None:
    """Other bytes in the middle of a piece, in place: whoever has it open serves them."""
    with piece_path(package, piece).open("r+b") as file:
        file.seek(at)
        was = file.read(64)
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in was))


@dataclass
class WebServer:
    """A folder behind HTTP, with ranges.

    Attributes:
        bend: what becomes of a file's bytes on their way, by path.
        asked: paths that were asked for, with their ranges.
        headers: names of the headers that came with requests.
        sent_bytes: bodies together.
    """

    folder: Path
    bend: Callable[[str, bytes], bytes] = lambda _path, data: data
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: set[str] = field(default_factory=set)
    sent_bytes: int = 0
    url: str = ""
    elsewhere: str = ""
    """Where everything is to be found instead."""

    def paths(self) -> set[str]:
        """All that was asked for."""
        return {path for path, _ in self.asked}


@contextmanager
def serving(server: WebServer) -> Iterator[WebServer]:
    """The server on loopback; `WebServer.url` is the address of the folder."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Nothing: tests look at what was asked."""

        def do_GET(self) -> None:
            path = self.path.removeprefix("/p/")
            asked = self.headers.get("Range", "")
            server.asked.append((path, asked))
            server.headers |= {name.lower() for name in self.headers}
            file = server.folder / path
            if server.elsewhere:
                self.send_response(302)
                self.send_header("Location", server.elsewhere + path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if not self.path.startswith("/p/") or not file.is_file():
                self.send_error(404)
                return
            data = server.bend(path, file.read_bytes())
            size = len(data)
            if asked:
                first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
                data = data[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            server.sent_bytes += len(data)
            try:
                self.wfile.write(data)
            except OSError:
                self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    http = ThreadingHTTPServer(LOOPBACK, Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/p/"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
