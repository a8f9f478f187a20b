"""A whole faucet: its light node, its account, its address; run and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dllm_protocol.address import encode_address
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.errors import NetworkUnreachable, TimedOut
from full_node.faucet.errors import FaucetRefused
from full_node.faucet.grants import Grants, Limits
from full_node.faucet.home import FaucetHome, faucet_key, hold_faucet
from full_node.faucet.payer import FaucetAccount, Payer
from full_node.faucet.server import FaucetServer, Network
from full_node.files import write_private
from full_node.rpc.guard import Door
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient
from light_node.clock import SystemClock
from light_node.queries import ProvedReads
from light_node.sending import Sender
from light_node.source import RpcSource
from light_node.trust_store import TrustStore

CHAIN_WAIT_S = 60.0
"""A node that was started together with the faucet needs a moment."""
_POLL_S = 0.5
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FaucetOptions:
    """How to run a faucet.

    Attributes:
        door: where it listens and whom it lets in.
        amount_udllm: what it gives each time.
        limits: how often.
        nodes: nodes to ask, the first one first; the bundle's where there are none.
    """

    door: Door
    amount_udllm: int
    limits: Limits
    nodes: tuple[str, ...] = ()


async def run_faucet(
    home: FaucetHome,
    bundle: NetworkBundle,
    options: FaucetOptions,
    stopped: Callable[[], Awaitable[object]],
    on_ready: Callable[[dict[str, object]], None],
) -> None:
    """Give tokens away until `stopped` returns.

    Raises:
        FaucetRefused: it cannot listen, or has nothing to give.
        DllmError: the network does not answer, or shows what does not hold.
    """
    lock = hold_faucet(home)
    try:
        account = FaucetAccount(faucet_key(home))
        grants = Grants(home.grants, options.limits.check(), lambda: int(time.time()))
        with contextlib.closing(grants):
            light = _light_node(home, bundle, options.nodes)
            try:
                reads = ProvedReads(light)
                sender = Sender(bundle.chain_id, reads, bundle.genesis.params)
                payer = Payer(reads, sender, account, options.amount_udllm)
                await _check_funds(payer, bundle)
                network = Network(bundle.chain_id, bundle.genesis.address_prefix)
                server = FaucetServer(network, payer, grants, options.door)
                await _serve(home, network, payer, server, options.door, stopped, on_ready)
            finally:
                await light.close()
    finally:
        os.close(lock)


def _light_node(home: FaucetHome, bundle: NetworkBundle, nodes: tuple[str, ...]) -> LightClient:
    known = dict.fromkeys((*(nodes or bundle.sources), *bundle.witnesses))
    primary, *witnesses = [RpcSource(url) for url in known]
    store = TrustStore(home.light, bundle.chain_id)
    return LightClient(
        bundle.chain_id, trust_options_of(bundle), store, primary, witnesses, clock=SystemClock()
    )


async def _check_funds(payer: Payer, bundle: NetworkBundle) -> None:
    """Wait for the chain, and see that there is something to give."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CHAIN_WAIT_S
    while True:
        try:
            balance_udllm = await payer.balance_udllm()
            break
        except (NetworkUnreachable, TimedOut):
            if loop.time() > deadline:
                raise
            await asyncio.sleep(_POLL_S)
    if balance_udllm < payer.amount_udllm:
        own = encode_address(bundle.genesis.address_prefix, payer.address)
        raise FaucetRefused(
            f"the faucet's account {own} has {balance_udllm} udllm, a grant is {payer.amount_udllm}",
            hint="fund it: in genesis (`dllm-node init --account`) or by a transfer",
        )


async def _serve(
    home: FaucetHome,
    network: Network,
    payer: Payer,
    server: FaucetServer,
    door: Door,
    stopped: Callable[[], Awaitable[object]],
    on_ready: Callable[[dict[str, object]], None],
) -> None:
    try:
        address = await server.start()
    except OSError as error:
        await server.stop()
        raise FaucetRefused(
            f"cannot listen on {door.host}:{door.port}: {error.strerror or error}",
            hint="give another --listen; port 0 lets the system choose",
        ) from error
    running: dict[str, object] = {
        "url": f"http://{address}",
        "pid": os.getpid(),
        "chain_id": network.chain_id,
        "from": encode_address(network.prefix, payer.address),
        "amount_udllm": payer.amount_udllm,
    }
    try:
        write_private(home.listening, json.dumps(running).encode() + b"\n")
        log.info("listening address=%s chain=%s", address, network.chain_id)
        on_ready(running)
        await stopped()
    finally:
        home.listening.unlink(missing_ok=True)
        await server.stop()
