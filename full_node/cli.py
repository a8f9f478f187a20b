"""`dllm-node`: make a node's folder, run it, ask how it is."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_protocol.address import address_of, decode_address
from dllm_protocol.bundle import fingerprint
from dllm_protocol.errors import UsageRefused
from dllm_protocol.genesis import GENESIS_VERSION, Genesis, GenesisAccount, GenesisValidator, chain_id_of
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.units import parse_dllm
from full_node.command_line import AsJson, Home, door_of, report
from full_node.files import make_private_folder
from full_node.home import HomeRefused, NodeHome, read_genesis, running_node, write_genesis
from full_node.keys import create_key, load_key
from full_node.lifeline import die_with_parent, watch_for_stop
from full_node.node import NodeOptions, Running, run_node
from full_node.node_log import log_to
from full_node.publishing import make_bundle, write_bundle
from full_node.state_machine.genesis import check_genesis

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
log = logging.getLogger(__name__)


@app.command()
def init(
    home: Home,
    chain_prefix: Annotated[str, typer.Option(help="Bech32 prefix of the chain's addresses.")] = "local",
    name: Annotated[str, typer.Option(help="First part of the chain id.")] = "dllm-local",
    genesis: Annotated[Path | None, typer.Option(help="Begin from this genesis file instead.")] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="ADDRESS=DLLM that an account starts with; repeatable.")
    ] = None,
    owner: Annotated[
        str, typer.Option(help="Whose stake stands behind the validator key; else the key's own account.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a node's folder: a validator key, and a chain that it alone validates."""

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        make_private_folder(home)
        signer = load_key(place.key) if place.key.exists() else create_key(place.key)
        if genesis is not None:
            made = read_genesis(genesis)
        elif place.genesis.exists():
            made = read_genesis(place.genesis)
        else:
            made = _own_genesis(name, chain_prefix, account or [], signer.public_key, owner)
        check_genesis(made)
        if place.genesis.exists() and read_genesis(place.genesis) != made:
            raise HomeRefused(
                f"{home} holds chain {chain_id_of(read_genesis(place.genesis))}, asked was {chain_id_of(made)}",
                hint="use another folder for another chain",
            )
        write_genesis(place, made)
        return {"home": str(home), "chain_id": chain_id_of(made), "public_key": signer.public_key.hex()}

    report(work, as_json, lambda data: f"chain {data['chain_id']} in {data['home']}")


@app.command()
def key(home: Home, as_json: AsJson = False) -> None:
    """Print the validator's public key, making one when there is none yet."""

    def work() -> dict[str, Any]:
        make_private_folder(home)
        path = NodeHome(home).key
        signer = load_key(path) if path.exists() else create_key(path)
        return {"public_key": signer.public_key.hex()}

    report(work, as_json, lambda data: str(data["public_key"]))


@app.command()
def start(
    home: Home,
    rpc_listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 lets the system choose.")
    ] = "127.0.0.1:0",
    token_file: Annotated[Path | None, typer.Option(help="Ask callers for the token in this file.")] = None,
    moniker: Annotated[str, typer.Option(help="The node's name.")] = "dllm-node",
    lifeline: Annotated[bool, typer.Option("--lifeline", help="Stop when standard input ends.")] = False,
) -> None:
    """Run the node. Prints one JSON line when it listens."""

    def ready(running: Running) -> None:
        typer.echo(json.dumps(running.document()))

    async def serve(place: NodeHome, options: NodeOptions) -> None:
        told = watch_for_stop(lifeline=lifeline)
        if lifeline:
            die_with_parent()
        await run_node(place, options, told.wait, ready)

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        if not home.is_dir():
            raise HomeRefused(f"{home} is not a node's folder", hint="run `dllm-node init` first")
        log_to(place.logs)
        options = NodeOptions(door_of(rpc_listen, token_file), moniker)
        try:
            asyncio.run(serve(place, options))
        except BaseException:
            log.exception("the node failed")
            raise
        return {}

    report(work, as_json=False, words=lambda _data: "")


@app.command()
def status(home: Home, as_json: AsJson = False) -> None:
    """Say where the node listens."""

    def work() -> dict[str, Any]:
        return running_node(NodeHome(home))

    report(
        work,
        as_json,
        lambda data: f"chain {data['chain_id']} at http://{data['address']}, process {data['pid']}",
    )


@app.command()
def bundle(
    home: Home,
    out: Annotated[str, typer.Option(help="Name of the file in the node's folder.")] = "network.bundle",
    source: Annotated[
        list[str] | None, typer.Option(help="ws://HOST:PORT/websocket where others reach a node; repeatable.")
    ] = None,
    witness: Annotated[list[str] | None, typer.Option(help="The same, of another operator.")] = None,
    seed: Annotated[
        list[str] | None, typer.Option(help="ID@HOST:PORT of a peer that new nodes dial; repeatable.")
    ] = None,
    faucet: Annotated[str, typer.Option(help="http://HOST:PORT of a test network's faucet.")] = "",
    as_json: AsJson = False,
) -> None:
    """Describe the running network in one signed file that others join it with."""

    def work() -> dict[str, Any]:
        place = NodeHome(home)
        signed = asyncio.run(make_bundle(place, source or (), witness or (), seed or (), faucet))
        return {
            "file": write_bundle(place, out, signed),
            "chain_id": signed.bundle.chain_id,
            "trust_height": signed.bundle.trust_height,
            "trust_hash": signed.bundle.trust_hash.hex().upper(),
            "fingerprint": fingerprint(signed.signer),
        }

    report(work, as_json, lambda data: f"{data['file']}: publisher's fingerprint {data['fingerprint']}")


def run() -> None:
    """Entry point of `dllm-node`."""
    app()


def _own_genesis(name: str, prefix: str, accounts: list[str], public_key: bytes, owner: str) -> Genesis:
    """A chain with one seat, which the key's owner holds with the least stake, added to what it is given."""
    params = replace(NETWORK_PARAMS, max_validators=1)
    staker = decode_address(owner, prefix) if owner else address_of(public_key)
    balances = {staker: params.min_stake_udllm}
    for one in accounts:
        address, amount_udllm = _account(one, prefix)
        balances[address] = balances.get(address, 0) + amount_udllm
    return Genesis(
        version=GENESIS_VERSION,
        name=name,
        genesis_time_ms=time.time_ns() // 1_000_000,
        address_prefix=prefix,
        params=params,
        accounts=tuple(GenesisAccount(address, amount) for address, amount in sorted(balances.items())),
        models=(),
        validators=(GenesisValidator(public_key, staker, params.min_stake_udllm),),
        nonce=secrets.token_bytes(32),
    )


def _account(text: str, prefix: str) -> tuple[bytes, int]:
    address, found, amount = text.partition("=")
    if not found:
        raise UsageRefused(f"--account is ADDRESS=DLLM, got {text!r}")
    return decode_address(address, prefix), parse_dllm(amount)
