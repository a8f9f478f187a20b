"""`dllm-node faucet`."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.address import address_of, encode_address
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.errors import UsageRefused
from dllm_protocol.units import parse_dllm
from full_node.command_line import AsJson, door_of, report
from full_node.faucet.errors import FaucetRefused
from full_node.faucet.grants import Limits
from full_node.faucet.home import FaucetHome, faucet_key, faucet_network
from full_node.files import make_private_folder
from full_node.lifeline import die_with_parent, watch_for_stop
from full_node.node_log import log_to
from full_node.rpc.guard import Door

log = logging.getLogger(__name__)
_DEFAULT = Limits()


def faucet(
    home: Annotated[Path, typer.Option(help="The faucet's folder: its key, and who got something lately.")],
    init: Annotated[bool, typer.Option("--init", help="Only make its key, and print its account.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="The test network's bundle; kept for the next start.")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="ws://HOST:PORT/websocket of a node to ask; repeatable.")
    ] = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 lets the system choose.")] = "127.0.0.1:0",
    host_name: Annotated[
        list[str] | None, typer.Option(help="A name that callers know it by, beside HOST; repeatable.")
    ] = None,
    amount: Annotated[str, typer.Option(help="DLLM that it gives each time.")] = "100",
    window_s: Annotated[int, typer.Option(help="The limits count this many seconds back.")] = (
        _DEFAULT.window_s
    ),
    per_address: Annotated[int, typer.Option(help="Grants an address gets in that time.")] = (
        _DEFAULT.per_address
    ),
    per_client: Annotated[int, typer.Option(help="Grants a client's address gets.")] = _DEFAULT.per_client,
    in_total: Annotated[int, typer.Option(help="Grants all together.")] = _DEFAULT.in_total,
    lifeline: Annotated[bool, typer.Option("--lifeline", help="Stop when standard input ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give tokens of a test network away, over HTTP, not too often. Prints one JSON line when it listens."""
    place = FaucetHome(home)

    def make() -> dict[str, Any]:
        account = address_of(faucet_key(place).public_key)
        known = bundle is not None or place.bundle.exists()
        signed = faucet_network(place, bundle) if known else None
        prefix = signed.bundle.genesis.address_prefix if signed else ""
        return {
            "home": str(home),
            "account": account.hex(),
            "address": encode_address(prefix, account) if prefix else "",
        }

    def serve() -> dict[str, Any]:
        make_private_folder(home)
        signed = faucet_network(place, bundle)
        amount_udllm = parse_dllm(amount)
        if amount_udllm < 1:
            raise FaucetRefused(f"--amount is {amount}, at least 0.000001 is given")
        limits = Limits(window_s, per_address, per_client, in_total)
        _run(place, signed, _door(listen, host_name or ()), amount_udllm, limits, tuple(node or ()), lifeline)
        return {}

    if init:
        report(make, as_json, lambda data: str(data["address"] or data["account"]))
    else:
        report(serve, as_json=False, words=lambda _data: "")


def _run(
    place: FaucetHome,
    signed: SignedBundle,
    door: Door,
    amount_udllm: int,
    limits: Limits,
    nodes: tuple[str, ...],
    lifeline: bool,
) -> None:
    from full_node.faucet.run import FaucetOptions, run_faucet

    log_to(place.logs)

    def ready(running: dict[str, object]) -> None:
        typer.echo(json.dumps(running))

    async def run() -> None:
        told = watch_for_stop(lifeline=lifeline)
        if lifeline:
            die_with_parent()
        options = FaucetOptions(door, amount_udllm, limits, nodes)
        await run_faucet(place, signed.bundle, options, told.wait, ready)

    try:
        asyncio.run(run())
    except BaseException:
        log.exception("the faucet failed")
        raise


def _door(listen: str, names: list[str] | tuple[str, ...]) -> Door:
    """Host is always held against names: the one listened on, loopback's, and those given."""
    door = door_of(listen, option="--listen")
    for name in names:
        if not name or "/" in name or ":" in name:
            raise UsageRefused(f"--host-name is a host's name without a port, got {name!r}")
    known = (door.host_names or frozenset({door.host})) | frozenset(name.lower() for name in names)
    return Door(door.host, door.port, "", known)
