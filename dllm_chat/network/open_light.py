"""The light node of the network in use, by itself: without wallet, sessions and workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dllm_chat.config import Config
from dllm_chat.embedded.door import join_embedded
from dllm_chat.network.lighting import MakeSource, light_client_of
from dllm_chat.network.witnesses import own_witnesses
from dllm_chat.paths import Paths
from dllm_chat.session.networks import joined_network, light_store_file
from dllm_protocol.bundle import NetworkBundle
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient
from light_node.clock import Clock, SystemClock
from light_node.source import RpcSource
from light_node.trust_store import TrustStore


@dataclass(frozen=True, slots=True)
class OpenLight:
    """A light node, and what it follows."""

    client: LightClient
    store: TrustStore
    bundle: NetworkBundle
    signer: bytes
    """Who signed the bundle; empty for the embedded network's."""
    own_witnesses: tuple[str, ...]

    @property
    def is_embedded(self) -> bool:
        """Whether it is the network that this machine runs for itself."""
        return not self.signer


@asynccontextmanager
async def open_light(
    paths: Paths,
    config: Config,
    on_progress: Callable[[str], None],
    *,
    make_source: MakeSource = RpcSource,
    clock: Clock | None = None,
) -> AsyncIterator[OpenLight]:
    """The light node of the joined network, or of the embedded one, which is started if need be.

    Nothing is asked yet. Raises what joining the embedded network raises.
    """
    joined = joined_network(paths)
    if joined is None:
        lease = await join_embedded(paths, config.linger_s, on_progress, config.model_file)
        try:
            with TrustStore(lease.home / "light.db", lease.bundle.chain_id) as store:
                client = light_client_of(lease.bundle, (), store, make_source=make_source, clock=clock)
                try:
                    await _renew(client, lease.bundle)
                    yield OpenLight(client, store, lease.bundle, b"", ())
                finally:
                    await client.close()
        finally:
            await lease.release()
        return
    bundle = joined.bundle
    own = own_witnesses(paths, bundle.chain_id)
    with TrustStore(light_store_file(paths, bundle.chain_id), bundle.chain_id) as store:
        client = light_client_of(bundle, own, store, make_source=make_source, clock=clock or SystemClock())
        try:
            yield OpenLight(client, store, bundle, joined.signer, own)
        finally:
            await client.close()


async def _renew(client: LightClient, bundle: NetworkBundle) -> None:
    """An embedded chain may have slept longer than trust lasts; its own newest header is as good a root as any."""
    known = client.status()
    if known.hash and known.expires_in_s <= 0:
        tip = (await client.primary.signed_header(None)).header
        await client.refresh_root(trust_options_of(bundle, tip.height, tip.hash()))
