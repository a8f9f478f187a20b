"""Describe this node's network so that others can join it: genesis, a trust root and where to ask, signed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp

from dllm_protocol.block import SignedHeader
from dllm_protocol.block_json import signed_header_from_json
from dllm_protocol.bundle import (
    BUNDLE_VERSION,
    TEST_PREFIX,
    NetworkBundle,
    SignedBundle,
    is_peer_address,
    is_test_network,
    sign_bundle,
)
from dllm_protocol.errors import MalformedBytes, NetworkUnreachable, UsageRefused
from dllm_protocol.genesis import Genesis, chain_id_of
from full_node.files import write_private
from full_node.home import NodeHome, read_genesis, running_node
from full_node.keys import create_key, load_key

PUBLISHER_KEY = "publisher_key.json"
TIMEOUT_S = 10.0


async def make_bundle(
    home: NodeHome,
    sources: Sequence[str],
    witnesses: Sequence[str],
    seeds: Sequence[str] = (),
    faucet: str = "",
) -> SignedBundle:
    """A signed bundle whose trust root is the running node's newest header.

    The publisher's key is made on first use and lies beside the validator's, which signs votes, and for whose stake.

    Args:
        sources: websockets at which others reach nodes of the network; this node's own address when empty.

        witnesses: the same, of other operators.
        seeds: P2P addresses ``id@host:port`` for those who want to run a node.
        faucet: ``http://host:port`` where a test network gives tokens away; empty where it does not.

    Raises:
        NodeNotRunning, NetworkUnreachable, UsageRefused
    """
    running = running_node(home)
    root = await _newest_header(str(running["address"]))
    genesis = read_genesis(home.genesis)
    if root.header.chain_id != chain_id_of(genesis):
        raise UsageRefused(
            f"the node is on chain {root.header.chain_id}, its genesis makes {chain_id_of(genesis)}"
        )
    urls = tuple(sources) or (f"ws://{running['address']}/websocket",)
    for url in (*urls, *witnesses):
        if not url.startswith(("ws://", "wss://")):
            raise UsageRefused(
                f"{url!r} is not a websocket address", hint="for example ws://host:26657/websocket"
            )
    for seed in seeds:
        if not is_peer_address(seed):
            raise UsageRefused(
                f"{seed!r} is not a peer's address", hint="40 hex digits of its id, then @host:port"
            )
    check_faucet(genesis, faucet)
    key_file = home.folder / PUBLISHER_KEY
    signer = load_key(key_file) if key_file.exists() else create_key(key_file)
    bundle = NetworkBundle(
        BUNDLE_VERSION,
        genesis,
        root.header.height,
        root.header.hash(),
        urls,
        tuple(witnesses),
        tuple(seeds),
        faucet,
    )
    return sign_bundle(signer, bundle)


def check_faucet(genesis: Genesis, faucet: str) -> None:
    """Raises UsageRefused for a faucet that a bundle of this chain may not name."""
    if not faucet:
        return
    if not faucet.startswith(("http://", "https://")):
        raise UsageRefused(f"{faucet!r} is not a web address", hint="for example http://host:26680")
    if not is_test_network(genesis):
        raise UsageRefused(
            f"addresses of {chain_id_of(genesis)} begin with {genesis.address_prefix!r}: only test networks "
            f"({TEST_PREFIX!r}) have a faucet"
        )


def write_bundle(home: NodeHome, name: str, signed: SignedBundle) -> str:
    """Keep the bundle in the node's folder; returns its path."""
    path = home.folder / name
    write_private(path, signed.encode())
    return str(path)


async def _newest_header(address: str) -> SignedHeader:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(f"http://{address}/commit") as answer,
        ):
            document: Any = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NetworkUnreachable(f"the node at {address} does not answer: {error}") from error
    try:
        return signed_header_from_json(document["result"]["signed_header"])
    except (KeyError, TypeError, MalformedBytes) as error:
        raise NetworkUnreachable(f"the node at {address} has no block yet") from error
