"""The light client of a network: whom it asks first, and who must show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dllm_chat.network.witnesses import distinct
from dllm_protocol.bundle import NetworkBundle
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient, TrustOptions
from light_node.clock import Clock, SystemClock
from light_node.source import RpcSource, Source
from light_node.trust_store import TrustStore

MakeSource = Callable[[str], Source]


def nodes_of(bundle: NetworkBundle, own: Sequence[str]) -> tuple[str, ...]:
    """All nodes that are asked: the bundle's sources, the person's own witnesses, the bundle's witnesses."""
    return distinct([*bundle.sources, *own, *bundle.witnesses])


def light_client_of(
    bundle: NetworkBundle,
    own: Sequence[str],
    store: TrustStore,
    *,
    trust: TrustOptions | None = None,
    make_source: MakeSource = RpcSource,
    clock: Clock | None = None,
) -> LightClient:
    """A client that asks the bundle's first source, and holds it against all other nodes.

    Args:
        own: the person's own witnesses.
        trust: another root than the bundle's.
    """
    primary, *witnesses = (make_source(url) for url in nodes_of(bundle, own))
    return LightClient(
        bundle.chain_id,
        trust or trust_options_of(bundle),
        store,
        primary,
        witnesses,
        clock=clock or SystemClock(),
    )
