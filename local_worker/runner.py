"""Runs a worker in this process: event loop, signals, lifeline, log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dllm_protocol.bundle import SignedBundle
from dllm_protocol.model_manifest import manifest_hash
from light_node.log_file import log_to
from local_worker.chain import LightChain
from local_worker.engine.client import Engine
from local_worker.errors import HomeRefused
from local_worker.files import make_home, write_private
from local_worker.garbage import freeze_started
from local_worker.keys import WorkerKeys
from local_worker.model_files import name_from_file
from local_worker.model_service import describe
from local_worker.service import Service, ServiceOptions
from local_worker.status import Status


def run_worker(
    options: ServiceOptions,
    keys: Sequence[WorkerKeys],
    bundle: SignedBundle,
    *,
    sources: Sequence[str],
    lifeline: bool,
    on_ready: Callable[[Status], None],
    log: tuple[str, str] = ("info", "json"),
) -> None:
    """Serve until SIGTERM, SIGINT or the lifeline's end; a second one stops at once.

    Args:
        log: the log's level and form.

    Raises:
        DllmError: it could not start, or cannot go on.
    """
    log_to(options.home / "worker.log", level=log[0], form=log[1])
    asyncio.run(_run(options, keys, bundle, sources, lifeline, on_ready))


async def _run(
    options: ServiceOptions,
    keys: Sequence[WorkerKeys],
    bundle: SignedBundle,
    sources: Sequence[str],
    lifeline: bool,
    on_ready: Callable[[Status], None],
) -> None:
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def asked() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    if lifeline:
        _watch_lifeline(loop, asked)
    first = LightChain.open(bundle, keys[0].operator, options.home / "light.db", sources=sources)
    chains = [first, *(first.beside(own.operator) for own in keys[1:])]

    def ready(status: Status) -> None:
        freeze_started()
        on_ready(status)

    await Service(options, keys, chains).run(stop, stop_now, ready)


def _watch_lifeline(loop: asyncio.AbstractEventLoop, asked: Callable[[], None]) -> None:
    """Whoever holds the other end of stdin keeps us alive; what they write is ignored."""
    descriptor = sys.stdin.fileno()
    os.set_blocking(descriptor, False)

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            asked()

    try:
        loop.add_reader(descriptor, readable)
    except PermissionError as error:
        raise HomeRefused(
            "--lifeline needs a pipe as stdin, not a file", hint="start it from a program"
        ) from error


def write_manifest(
    home: Path, model: Path, out: Path, *, name: str | None, chat_template: str | None, licence: str
) -> dict[str, Any]:
    """Load a model once, write its manifest, and say what is in it."""
    make_home(home)
    return asyncio.run(_write_manifest(home, model, out, name, chat_template, licence))


async def _write_manifest(
    home: Path, model: Path, out: Path, name: str | None, chat_template: str | None, licence: str
) -> dict[str, Any]:
    engine = await Engine.start(
        model, context_rows=256, sequences=1, threads=None, log_path=home / "engine.log"
    )
    try:
        loaded = await describe(model, engine)
    finally:
        await engine.close()
    made = loaded.manifest(name or name_from_file(model), chat_template, licence)
    write_private(out, made.encode())
    return {
        "name": made.name,
        "manifest_hash": manifest_hash(made).hex(),
        "architecture": made.architecture,
        "layers": made.layers,
        "context_rows": made.context_rows,
        "chat_template": made.chat_template,
        "size_bytes": made.pieces[0].size_bytes,
    }
