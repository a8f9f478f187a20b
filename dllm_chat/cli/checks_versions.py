"""What `dllm doctor` says of versions: programs and libraries, and the stores that this home holds."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from dllm_chat.cli.check import Check
from dllm_chat.config import Config
from dllm_chat.history.schema import SCHEMA as HISTORY
from dllm_chat.paths import Paths
from dllm_chat.session.saved import SCHEMA as SESSIONS
from dllm_protocol.schema_steps import Schema
from light_node.trust_store import SCHEMA as TRUST

PYTHON_MIN = (3, 11)
SQLITE_MIN = (3, 37, 0)
"""From this version on SQLite has strict tables and returns rows from what it deletes."""
COMETBFT_LINE = "0.38."
COMETBFT_ANSWER_S = 10.0
STORES_MAX = 200
_KNOWN = {schema.application_id: schema for schema in (HISTORY, SESSIONS, TRUST)}
_HEADER_BYTES = 100
_SQLITE_MAGIC = b"SQLite format 3\x00"


def programs(_: Paths, __: Config) -> Iterator[Check]:
    """Python, SQLite, libsodium and CometBFT."""
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON_MIN:
        yield Check("python", "fail", python, "install Python 3.11 or newer, then make setup")
    else:
        yield Check("python", "ok", python)
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        yield Check(
            "sqlite", "fail", sqlite3.sqlite_version, f"use a Python that brings SQLite {wanted} or newer"
        )
    else:
        yield Check("sqlite", "ok", sqlite3.sqlite_version)
    yield _libsodium()
    yield _cometbft()


def _libsodium() -> Check:
    try:
        return Check("libsodium", "ok", f"PyNaCl {metadata.version('pynacl')}, which brings its own")
    except metadata.PackageNotFoundError:
        return Check("libsodium", "fail", "PyNaCl is not installed", "make setup")


def _cometbft() -> Check:
    """Only networks of several validators need it, so its absence is no failure."""
    program = _find_cometbft()
    if program is None:
        return Check("cometbft", "ok", "not installed; only a node of a network needs it: make cometbft")
    try:
        done = subprocess.run(  # noqa: S603 - the person's own program, no shell
            [program, "version"], capture_output=True, text=True, timeout=COMETBFT_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("cometbft", "fail", f"{program} does not run: {error}", "make cometbft")
    said = done.stdout.strip()[:40]
    if done.returncode or not said.removeprefix("v").startswith(COMETBFT_LINE):
        return Check(
            "cometbft", "fail", f"{program} is {said or 'mute'}, not {COMETBFT_LINE}x", "make cometbft"
        )
    return Check("cometbft", "ok", f"{said} at {program}")


def _find_cometbft() -> str | None:
    """As `dllm-node` looks for it: named, beside the running Python, on PATH."""
    if named := os.environ.get("DLLM_COMETBFT"):
        return named
    beside = Path(sys.prefix) / "bin" / "cometbft"
    return str(beside) if beside.exists() else shutil.which("cometbft")


def stores(paths: Paths, _: Config) -> Iterator[Check]:
    """The versions of the databases in this home, read from their first bytes: nothing is opened or upgraded."""
    seen = failed = 0
    for path in _databases(paths):
        found = _application_and_version(path)
        if found is None:
            failed += 1
            yield Check(
                "stores", "fail", f"{path} is no database", "restore it from a backup, or move it away"
            )
            continue
        schema = _KNOWN.get(found[0])
        if schema is None:
            continue  # another program of ours has it: dllm-node doctor, dllm-worker
        seen += 1
        if found[1] > schema.version:
            failed += 1
            yield _too_new(path, schema, found[1])
    if not failed:
        yield Check("stores", "ok", f"{seen} databases of known versions")


def _databases(paths: Paths) -> list[Path]:
    folders = [folder for folder in {paths.data, paths.state} if folder.is_dir()]
    found = {path for folder in folders for path in folder.rglob("*.db") if path.is_file()}
    return sorted(found)[:STORES_MAX]


def _application_and_version(path: Path) -> tuple[int, int] | None:
    """SQLite's application id and user version; None where the file is no database. An empty file is a new one."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError:
        return None
    if not head:
        return 0, 0
    if len(head) < _HEADER_BYTES or not head.startswith(_SQLITE_MAGIC):
        return None
    return int.from_bytes(head[68:72]), int.from_bytes(head[60:64])


def _too_new(path: Path, schema: Schema, version: int) -> Check:
    return Check(
        "stores",
        "fail",
        f"{path} ({schema.name}) has version {version}, this program knows up to {schema.version}",
        "a newer dllm wrote it: start that one",
    )
