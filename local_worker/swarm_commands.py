"""``dllm-worker model fetch`` and ``seed``: pieces from others' packages, and to them. No keys."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.errors import UsageRefused
from dllm_protocol.model_manifest import Manifest, manifest_hash
from local_worker.command_output import Json, note, reported, say
from local_worker.command_words import Expected, hash_from, interruptible
from local_worker.layer_range import parse_layers
from local_worker.packages.package import MANIFEST_FILE, load_manifest
from local_worker.swarm.fetching import fetch as fetch_pieces
from local_worker.swarm.seeding import Seeder, check_packages
from local_worker.swarm.sources import (
    Limits,
    Place,
    numeric_place,
    place_from,
    rate_from,
    resolved,
    sources_from,
)
from local_worker.swarm.swarm import Swarm

CONNECTIONS_MAX = 2_000
IDLE_MAX_S = 86_400
_Upload = Annotated[
    str, typer.Option("--upload-limit", help="Bytes a second to peers: 2M, 500k; 0 = no limit.")
]
_Connections = Annotated[int, typer.Option(help="With peers, at one time.", min=1, max=CONNECTIONS_MAX)]
_Lifeline = Annotated[bool, typer.Option(help="Stop when stdin ends.")]
_FindsPeers = Annotated[
    bool,
    typer.Option(
        "--find-peers", help="Ask the public DHT, and peers for peers; tells strangers what is fetched."
    ),
]


def fetch(
    manifest: Annotated[Path, typer.Argument(help="A manifest's file, or a package of the same model.")],
    out: Annotated[Path, typer.Option(help="The package's folder; a fetch that was stopped goes on in it.")],
    layers: Annotated[str, typer.Option(help="FIRST:END, END not included; either may be left out.")] = ":",
    peer: Annotated[list[str] | None, typer.Option(help="host:port of somebody who seeds.")] = None,
    web_seed: Annotated[
        list[str] | None, typer.Option(help="Address of a package's folder behind HTTP.")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="host:port where peers may come to meanwhile; empty = nowhere.")
    ] = "",
    upload_limit: _Upload = "0",
    download_limit: Annotated[str, typer.Option(help="Bytes a second; 0 = no limit.")] = "0",
    connections: _Connections = 200,
    idle: Annotated[
        int, typer.Option(help="Seconds without anything until it fails.", min=1, max=IDLE_MAX_S)
    ] = 120,
    find_peers: _FindsPeers = False,
    header_only: Annotated[
        bool, typer.Option("--header-only", help="The header piece and no other.")
    ] = False,
    manifest_hash: Expected = None,
    lifeline: _Lifeline = False,
    as_json: Json = False,
) -> None:
    """Fetch the pieces of some layers from peers and web seeds; each is compared with the manifest to the byte."""
    with reported(as_json), interruptible():
        model = _manifest(manifest, hash_from(manifest_hash))
        first, end = parse_layers(layers, model.layers)
        sources = sources_from(peer or [], web_seed or [])
        limits = Limits(rate_from(upload_limit), rate_from(download_limit), connections, float(idle))
        place = _listen_place(listen) if listen else None
        if lifeline:
            _end_with_stdin()
        with closing(Swarm(limits, place, finds_peers=find_peers)) as swarm:
            wanted = (model, first, end, out, sources, limits.idle_s, note)
            done = fetch_pieces(swarm, *wanted, header_only=header_only)
        say(
            {"package": str(out), "first_layer": first, "end_layer": end, **_named(model), **asdict(done)},
            as_json,
        )


def seed(
    packages: Annotated[list[Path], typer.Argument(help="Packages' folders.")],
    listen: Annotated[str, typer.Option(help="host:port to listen on; port 0 takes a free one.")],
    upload_limit: _Upload = "0",
    connections: _Connections = 200,
    find_peers: _FindsPeers = False,
    lifeline: _Lifeline = False,
    as_json: Json = False,
) -> None:
    """Serve the pieces of packages to peers until told to stop; pieces that come meanwhile are served too."""
    with reported(as_json), _told_to_stop() as is_told:
        check_packages(packages)
        limits = Limits(upload_bytes_per_s=rate_from(upload_limit), connections=connections)
        place = _listen_place(listen)
        if lifeline:
            _end_with_stdin()
        with closing(Swarm(limits, place, finds_peers=find_peers)) as swarm:
            seeder = Seeder(swarm, packages, note)
            serving = asdict(seeder.look())
            at = numeric_place(*swarm.listens_at) if swarm.listens_at else ""
            say(
                {"state": "seeding", "listen": at, "packages": [str(one) for one in packages], **serving},
                as_json,
            )
            seeder.run(is_told)
            note(f"sent {swarm.uploaded_bytes()} bytes of pieces")


def _manifest(path: Path, expected: bytes | None) -> Manifest:
    return load_manifest(path / MANIFEST_FILE if path.is_dir() else path, expected)


def _named(model: Manifest) -> dict[str, Any]:
    return {"name": model.name, "manifest_hash": manifest_hash(model).hex()}


def _listen_place(text: str) -> Place:
    return resolved(*place_from(text, lowest_port=0))[0]


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    told = threading.Event()
    before = {
        number: signal.signal(number, lambda _number, _frame: told.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_stdin() -> None:
    """Whoever holds the other end of stdin keeps us alive; what they write is ignored."""
    if sys.stdin is None or sys.stdin.closed:
        raise UsageRefused("--lifeline needs stdin", hint="start it from a program")
    descriptor = sys.stdin.fileno()

    def wait() -> None:
        while os.read(descriptor, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
