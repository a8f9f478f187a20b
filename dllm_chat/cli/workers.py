"""Switching this home's worker on and off."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dllm_chat.cli.output import note, progress
from dllm_chat.cli.service import paying, settings, watching
from dllm_chat.contributing import Contributing
from dllm_chat.embedded.door import supervisor_running
from dllm_chat.serving_checks import check_serving
from dllm_chat.serving_from import ServingFrom
from dllm_chat.serving_pieces import ServingPieces
from dllm_chat.session.events import WorkerStatus
from dllm_chat.session.networks import joined_network
from dllm_chat.session.service import ChatService
from dllm_protocol.errors import UsageRefused

EMBEDDED_NOTE = (
    "on the embedded network a worker lives as long as that network does: "
    "dllm worker on --stay, or an open dllm-chat, keeps both"
)
START_TIMEOUT_S = 30.0


async def switch_on(
    model: Path | None,
    password_file: Path | None,
    password_fd: int | None,
    *,
    server: ServingFrom | None,
    pieces: ServingPieces | None = None,
    relay: str,
    stay: bool,
) -> dict[str, Any]:
    """Start the worker; with ``stay``, hold the network until Ctrl-C.

    Args:
        server: what computes the rows instead of the worker itself.
        pieces: a model in pieces that is served instead of a file.
        relay: through which it is reached; where empty, that of the settings.

    Raises:
        UsageRefused: a relay or pieces for the embedded network, which nobody else is on; or two models.
        WorkerFailed: the worker ended, and why.
        As `check_serving`, before any network is opened.
    """
    if pieces is not None and (model is not None or server is not None):
        raise UsageRefused("--package stands alone", hint="leave --model and --backend away")
    if pieces is not None and _contributing()[1]:
        raise UsageRefused(
            "--package is for a network of others, and none is joined", hint="dllm network join BUNDLE"
        )
    if relay and _contributing()[1]:
        raise UsageRefused(
            "--relay is for a network of others, and none is joined", hint="dllm network join BUNDLE"
        )
    await check_serving(model, server)
    async with paying(password_file, password_fd, chat_key_will_do=False, relay=relay or None) as service:
        progress("starting the worker (a first bond is posted when its model has loaded)")
        await service.worker_on(_absolute(model), server, pieces)
        embedded = service.badge == "LOCAL"
        found = await _serving(service)
        if stay:
            note("serving; Ctrl-C stops")
            await _until_interrupted()
            await service.worker_off()
            found = await service.worker_status()
    return _data(found, embedded) | {"note": EMBEDDED_NOTE if embedded and not stay else ""}


async def switch_off() -> dict[str, Any]:
    """Stop the worker, if one runs. Never starts a network for it."""
    before = status_data()
    if before["state"] != "off":
        if before["embedded"] and supervisor_running(settings()[0].embedded):
            async with watching() as service:
                await service.worker_off()
        else:
            await _contributing()[0].stop()
    return status_data() | {"was_running": before["running"]}


def status_data() -> dict[str, Any]:
    """What the worker last wrote of itself."""
    contributing, embedded = _contributing()
    return _data(contributing.status(), embedded)


async def _serving(service: ChatService) -> WorkerStatus:
    """Wait until the worker serves; a big model may take longer, and goes on by itself.

    Raises:
        WorkerFailed: it ended, and why.
    """
    found = await service.connection.contributing.until_serving(START_TIMEOUT_S)
    return found if found.state == "serving" else replace(found, state="starting")


def _absolute(model: Path | None) -> Path | None:
    return model.absolute() if model else None


def _contributing() -> tuple[Contributing, bool]:
    """This home's worker, and whether it is the embedded network's."""
    paths, config = settings()
    if joined_network(paths) is not None:
        return Contributing(paths.data / "worker", None, None, config), False
    return Contributing(paths.embedded / "worker-own", None, None, config), True


def _data(found: WorkerStatus, embedded: bool) -> dict[str, Any]:
    return asdict(found) | {"embedded": embedded}


async def _until_interrupted() -> None:
    """Wait for Ctrl-C, which ends the waiting and not the program."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
