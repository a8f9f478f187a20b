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
_MINUTE_MS, _KIB, _MIB = 60_000, 1 << 10, 1 << 20


RelayFolder = Annotated[Path, typer.Option(help="The relay's folder: where it listens, and its log.")]
Listen = Annotated[str, typer.Option(help="HOST:PORT; port 0 lets the system choose.")]
Names = Annotated[
    list[str] | None,
    typer.Option(
        help="HOST or HOST:PORT in the address that its users type (port 443 if none); repeatable. Needed behind "
        "a reverse proxy and with --listen 0.0.0.0."
    ),
]
BehindProxy = Annotated[
    bool,
    typer.Option(
        "--behind-proxy", help="Count users by the last address in X-Forwarded-For, which your proxy sets."
    ),
]
Connections = Annotated[int, typer.Option(help="Connections at once.")]
PerRemote = Annotated[int, typer.Option(help="Connections at once of one IPv4 address or IPv6 /64.")]
OpensPerMinute = Annotated[int, typer.Option(help="New connections a minute of one such address.")]
Listeners = Annotated[int, typer.Option(help="Listeners at once.")]
Streams = Annotated[int, typer.Option(help="Streams at once.")]
PerListener = Annotated[int, typer.Option(help="Streams at once to one listener.")]
StreamMib = Annotated[int, typer.Option(help="MiB that one stream carries at most.")]
StreamPace = Annotated[int, typer.Option(help="KiB a second that one stream carries at most.")]
RemotePace = Annotated[
    int,
    typer.Option(
        help="KiB a second that are taken of one IPv4 address or IPv6 /64, all its streams together."
    ),
]
StreamMinutes = Annotated[int, typer.Option(help="Minutes that one stream lives at most.")]
IdleS = Annotated[int, typer.Option(help="Seconds after which a silent stream is cut.")]
StallS = Annotated[
    int, typer.Option(help="Seconds after which a side is cut that does not take what was sent.")
]
MetricsListen = Annotated[str, typer.Option(help="HOST:PORT for Prometheus' metrics; empty = none.")]


def relay(
    home: RelayFolder,
    listen: Listen = "127.0.0.1:0",
    name: Names = None,
    behind_proxy: BehindProxy = False,
    connections: Connections = _DEFAULT.connections,
    per_remote: PerRemote = _DEFAULT.connections_per_remote,
    opens_per_minute: OpensPerMinute = _DEFAULT.opens_per_minute,
    listeners: Listeners = _DEFAULT.listeners,
    streams: Streams = _DEFAULT.streams,
    per_listener: PerListener = _DEFAULT.streams_per_listener,
    stream_mib: StreamMib = _DEFAULT.stream_bytes // _MIB,
    stream_kib_s: StreamPace = _DEFAULT.stream_bytes_per_s // _KIB,
    remote_kib_s: RemotePace = _DEFAULT.remote_bytes_per_s // _KIB,
    stream_minutes: StreamMinutes = _DEFAULT.stream_ms // _MINUTE_MS,
    idle_s: IdleS = _DEFAULT.idle_ms // 1000,
    stall_s: StallS = _DEFAULT.stall_ms // 1000,
    metrics_listen: MetricsListen = "",
    log_level: LogLevel = "info",
    log_format: LogFormat = "json",
    lifeline: Annotated[bool, typer.Option("--lifeline", help="Stop when standard input ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Join people and workers who cannot reach each other, without reading what they say.

    It knows no chain and keeps nothing. Prints where it listens, and ends in order on Ctrl-C or SIGTERM. For
    strangers let it listen on loopback, behind a reverse proxy with TLS: docs/operating/relay.md.

    \b
      dllm-node relay --home relay --listen 192.168.1.20:9700
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
            stream_bytes_per_s=stream_kib_s * _KIB,
            remote_bytes_per_s=remote_kib_s * _KIB,
            stream_ms=stream_minutes * _MINUTE_MS,
            idle_ms=idle_s * 1000,
            stall_ms=stall_s * 1000,
        )
        door = door_of(listen, option="--listen")
        metrics = door_of(metrics_listen, option="--metrics-listen") if metrics_listen else None
        options = RelayOptions(door.host, door.port, tuple(name or ()), limits.check(), behind_proxy, metrics)
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
    typer.echo(f"relay at {running['address']}, process {running['pid']}, known as {names}")
