"""When a devnet's workers can be asked: not when they say so, but when a frozen offer book proves it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

from dllm_chat.devnet.errors import DevnetFailed
from dllm_protocol.address import PROVIDER_SUFFIX, decode_address
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.errors import DllmError, NotFound
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient
from light_node.clock import SystemClock
from light_node.queries import ProvedReads
from light_node.source import RpcSource
from light_node.trust_store import TrustStore

POLL_S = 0.2


async def until_offered(
    bundle: NetworkBundle, folder: Path, workers: Mapping[str, Collection[str]], timeout_s: float
) -> None:
    """Wait until every worker stands in its model's newest offer book.

    Args:
        folder: for what the light node learns meanwhile.
        workers: model name → addresses of the providers that offer it.

    Raises:
        DevnetFailed: not in time, and what stood in the way.
    """
    trust = TrustStore(folder / "light.db", bundle.chain_id)
    source, witnesses = RpcSource(bundle.sources[0]), [RpcSource(url) for url in bundle.witnesses]
    light = LightClient(
        bundle.chain_id, trust_options_of(bundle), trust, source, witnesses, clock=SystemClock()
    )
    prefix = bundle.genesis.address_prefix + PROVIDER_SUFFIX
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    try:
        for model, addresses in workers.items():
            wanted = {decode_address(address, prefix) for address in addresses}
            while problem := await _missing(ProvedReads(light), model, wanted):
                if loop.time() > deadline:
                    raise DevnetFailed(f"{model} is not offered after {timeout_s:g} s: {problem}")
                await asyncio.sleep(POLL_S)
    finally:
        await light.close()


async def _missing(reads: ProvedReads, model: str, wanted: Collection[bytes]) -> str:
    """What stands in the way of asking them; empty where nothing does."""
    try:
        book = await reads.offer_book(model)
    except NotFound:
        return "there is no offer book yet"
    except DllmError as error:  # nodes that start do not answer yet; what lasts is told at the end
        return error.message
    missing = set(wanted) - {entry.provider for entry in book.entries}
    return (
        f"{len(missing)} of {len(wanted)} workers are not in the book of epoch {book.epoch}"
        if missing
        else ""
    )
