"""Commands that serve until they are told to stop: their report comes first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer

from dllm_chat.cli.command import Mode
from dllm_chat.cli.output import Report, write_report

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@asynccontextmanager
async def told_to_stop() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C and the usual signals set; enter before anything is announced."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)


def announce(report: Report) -> None:
    """Write the report of a command that goes on."""
    write_report(report, as_json=Mode.as_json)


def ended() -> typer.Exit:
    """What a command raises whose report is written already."""
    return typer.Exit(0)
