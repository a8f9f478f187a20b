"""Telling others of a network: `dllm-node bundle`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from dllm_protocol.bundle import fingerprint
from dllm_protocol.invitation import hash_words
from full_node.command_line import AsJson, Home, report
from full_node.home import NodeHome
from full_node.publishing import make_bundle, write_bundle


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
            "bundle_hash": hash_words(signed.encode()),
        }

    report(work, as_json, lambda data: f"{data['file']}: publisher's fingerprint {data['fingerprint']}")
