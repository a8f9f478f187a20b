"""Running a node and asking how it is: `dllm-node start` and `status`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.errors import UsageRefused
from full_node.cometbft_node import CometBftOptions, run_cometbft_node
from full_node.command_line import AsJson, Home, door_of, report
from full_node.commands.homes import Engine, Peers, Seeds
from full_node.consensus.cometbft.config import Listen
from full_node.halting import Halt, HaltReached
from full_node.home import HomeRefused, NodeHome
from full_node.lifeline import die_with_parent, watch_for_stop
from full_node.node import NodeOptions, Running, run_node
from full_node.node_log import log_to
from full_node.rpc.guard import Door
from full_node.settings import COMETBFT, read_settings
from full_node.standing import standing_of
from full_node.state.snapshots import SnapshotSettings

log = logging.getLogger(__name__)
Run = Callable[[Callable[[], Awaitable[object]], Callable[[Running], None]], Awaitable[None]]

SnapshotEvery = Annotated[
    int, typer.Option(help="Take a snapshot of the state every so many blocks; 0 = never.", min=0)
]
HaltHeight = Annotated[
    int, typer.Option(help="Make no block after this one and end with exit code 10; 0 = go on.", min=0)
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.", envvar="DLLM_LOG_LEVEL")]
LogFormat = Annotated[str, typer.Option(help="json or logfmt.", envvar="DLLM_LOG_FORMAT")]
PastHalt = Annotated[
    bool, typer.Option("--past-halt", help="Go on in a folder that was halted, with the same program.")
]


def start(
    home: Home,
    engine: Engine = "",
    rpc_listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 lets the system choose.")
    ] = "127.0.0.1:0",
    token_file: Annotated[
        Path | None, typer.Option(help="solo: ask callers for the token in this file.")
    ] = None,
    moniker: Annotated[str, typer.Option(help="The node's name.")] = "dllm-node",
    p2p_listen: Annotated[
        str, typer.Option(help="cometbft: HOST:PORT for peers; port 0 lets the system choose.")
    ] = "127.0.0.1:0",
    p2p_external: Annotated[str, typer.Option(help="cometbft: HOST:PORT that peers are told instead.")] = "",
    peer: Peers = None,
    seed: Seeds = None,
    cometbft: Annotated[Path | None, typer.Option(help="cometbft: where the program is.")] = None,
    keep_blocks: Annotated[
        int,
        typer.Option(help="Blocks to keep; 0 = all. cometbft: never fewer than evidence may need.", min=0),
    ] = 0,
    snapshot_every: SnapshotEvery = 0,
    halt_height: HaltHeight = 0,
    past_halt: PastHalt = False,
    prometheus: Annotated[
        str, typer.Option(help="cometbft: HOST:PORT for CometBFT's metrics; empty = none.")
    ] = "",
    metrics_listen: Annotated[
        str, typer.Option(help="HOST:PORT for Prometheus' metrics, CometBFT's behind ours; empty = none.")
    ] = "",
    log_level: LogLevel = "info",
    log_format: LogFormat = "json",
    lifeline: Annotated[bool, typer.Option("--lifeline", help="Stop when standard input ends.")] = False,
) -> None:
    """Run the node. Prints one JSON line when it listens."""

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        if not home.is_dir():
            raise HomeRefused(f"{home} is not a node's folder", hint="run `dllm-node init` first")
        log_to(place.logs, level=log_level, form=log_format)
        metrics = door_of(metrics_listen, option="--metrics-listen") if metrics_listen else None
        halt, snapshots = Halt(halt_height, past_halt), SnapshotSettings(snapshot_every)
        settings = read_settings(place).with_(engine, tuple(peer or ()), tuple(seed or ()))
        door = door_of(rpc_listen, token_file)
        if settings.engine == COMETBFT:
            behind = CometBftOptions(
                settings,
                rpc=_without_token(door),
                p2p=listen_of(p2p_listen, "--p2p-listen"),
                external=p2p_external,
                moniker=moniker,
                program=cometbft,
                block_window=keep_blocks,
                snapshots=snapshots,
                prometheus=prometheus,
                metrics=metrics,
                halt=halt,
            )
            run: Run = partial(run_cometbft_node, place, behind)
        else:
            alone = NodeOptions(
                door, moniker, block_window=keep_blocks, halt=halt, snapshots=snapshots, metrics=metrics
            )
            run = partial(run_node, place, alone)
        _run_until_stopped(run, lifeline)
        return {}

    report(work, as_json=False, words=lambda _data: "")


def _without_token(door: Door) -> Listen:
    if door.token:
        raise UsageRefused(
            "CometBFT's RPC asks for no token",
            hint="let it listen on loopback, behind a proxy that does",
        )
    return Listen(door.host, door.port)


def _run_until_stopped(run: Run, lifeline: bool) -> None:
    def ready(running: Running) -> None:
        typer.echo(json.dumps(running.document()))

    async def serve() -> None:
        told = watch_for_stop(lifeline=lifeline)
        if lifeline:
            die_with_parent()
        await run(told.wait, ready)

    try:
        asyncio.run(serve())
    except HaltReached as reached:
        log.info("%s", reached.message)
        raise
    except BaseException:
        log.exception("the node failed")
        raise


def status(home: Home, as_json: AsJson = False) -> None:
    """Say where the node listens and how far it is."""

    def work() -> dict[str, Any]:
        return asyncio.run(standing_of(NodeHome(home))).document()

    report(work, as_json, _words)


def listen_of(text: str, option: str) -> Listen:
    """Reads HOST:PORT. Raises UsageRefused."""
    door = door_of(text, option=option)
    return Listen(door.host, door.port)


def _words(data: dict[str, Any]) -> str:
    lines = [f"chain {data['chain_id']} at http://{data['address']}, process {data['pid']}"]
    if data["height"] is not None:
        how = "catching up" if data["catching_up"] else "up to date"
        role = "validator" if data["validator"] else "full node"
        lines.append(f"height {data['height']}, {how}, {data['peers']} peers, {role}")
        lines.append(f"app hash {data['app_hash']}")
    if data["peer_address"]:
        lines.append(f"peers reach it as {data['peer_address']}")
    return "\n".join(lines)
