"""`dllm-node relay`."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.errors import DllmError
from full_node.command_line import AsJson, door_of, report
from full_node.commands.running import LogFormat, LogLevel
from full_node.lifeline import die_with_parent, watch_for_stop
from full_node.node_log import log_to
from full_node.relay.home import RelayHome, held_relay
from full_node.relay.limits import RelayLimits
from full_node.relay.run import RelayOptions, run_relay

log = logging.getLogger(__name__)
_DEFAULT = RelayLimits()
_MINUTE_MS, _MIB = 60_000, 1 << 20


def relay(
    home: Annotated[Path, typer.Option(help="The relay's folder: where it listens, and its log.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 lets the system choose.")] = "127.0.0.1:0",
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST or HOST:PORT in the address that its users type (port 443 if none); repeatable. Needed "
            "behind a reverse proxy and with --listen 0.0.0.0."
        ),
    ] = None,
    behind_proxy: Annotated[
        bool,
        typer.Option(
            "--behind-proxy",
            help="Count users by the last address in X-Forwarded-For, which your proxy sets.",
        ),
    ] = False,
    connections: Annotated[int, typer.Option(help="Connections at once.")] = _DEFAULT.connections,
    per_remote: Annotated[
        int, typer.Option(help="Connections at once of one IPv4 address or IPv6 /64.")
    ] = _DEFAULT.connections_per_remote,
    opens_per_minute: Annotated[
        int, typer.Option(help="New connections a minute of one IPv4 address or IPv6 /64.")
    ] = _DEFAULT.opens_per_minute,
    listeners: Annotated[int, typer.Option(help="Listeners at once.")] = _DEFAULT.listeners,
    streams: Annotated[int, typer.Option(help="Streams at once.")] = _DEFAULT.streams,
    per_listener: Annotated[
        int, typer.Option(help="Streams at once to one listener.")
    ] = _DEFAULT.streams_per_listener,
    stream_mib: Annotated[int, typer.Option(help="MiB that one stream carries at most.")] = (
        _DEFAULT.stream_bytes // _MIB
    ),
    stream_minutes: Annotated[int, typer.Option(help="Minutes that one stream lives at most.")] = (
        _DEFAULT.stream_ms // _MINUTE_MS
    ),
    idle_s: Annotated[int, typer.Option(help="Seconds after which a silent stream is cut.")] = (
        _DEFAULT.idle_ms // 1000
    ),
    stall_s: Annotated[
        int, typer.Option(help="Seconds after which a side is cut that does not take what was sent.")
    ] = _DEFAULT.stall_ms // 1000,
    metrics_listen: Annotated[
        str, typer.Option(help="HOST:PORT for Prometheus' metrics; empty = none.")
    ] = "",
    log_level: LogLevel = "info",
    log_format: LogFormat = "json",
    lifeline: Annotated[bool, typer.Option("--lifeline", help="Stop when standard input ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Join people and workers who cannot reach each other, without reading what they say.

    It knows no chain and keeps nothing. Prints where it listens, and ends in order on Ctrl-C or SIGTERM. For
    strangers let it listen on loopback, behind a reverse proxy with TLS: docs/operating/relay.md.

    \b
      dllm-node relay --home relay --listen 127.0.0.1:9700
      dllm-node relay --home relay --listen 127.0.0.1:9700 --name relay.example --behind-proxy
    """

    def work() -> dict[str, Any]:
        limits = RelayLimits(
            connections=connections,
            connections_per_remote=per_remote,
            opens_per_minute=opens_per_minute,
            listeners=listeners,
            streams=streams,
            streams_per_listener=per_listener,
            stream_bytes=stream_mib * _MIB,
            stream_ms=stream_minutes * _MINUTE_MS,
            idle_ms=idle_s * 1000,
            stall_ms=stall_s * 1000,
        ).check()
        door = door_of(listen, option="--listen")
        metrics = door_of(metrics_listen, option="--metrics-listen") if metrics_listen else None
        options = RelayOptions(door.host, door.port, tuple(name or ()), limits, behind_proxy, metrics)
        place = RelayHome(home)
        with held_relay(place):
            log_to(place.logs, level=log_level, form=log_format)
            _run(place, options, lifeline, as_json)
        raise typer.Exit(0)  # what there is to report was reported when it listened

    report(work, as_json, words=lambda _data: "")


def _run(place: RelayHome, options: RelayOptions, lifeline: bool, as_json: bool) -> None:
    async def run() -> None:
        told = watch_for_stop(lifeline=lifeline)
        if lifeline:
            die_with_parent()
        await run_relay(place, options, told.wait, lambda running: _announce(running, as_json))

    try:
        asyncio.run(run())
    except DllmError as error:
        log.error("%s", error.message)
        raise
    except BaseException:
        log.exception("the relay failed")
        raise


def _announce(running: dict[str, object], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": True, "data": running}))
        return
    names = ", ".join(str(one) for one in running["names"])  # type: ignore[attr-defined]  # a list by construction
    typer.echo(f"relay at {running['url']}, process {running['pid']}, known as {names}")
