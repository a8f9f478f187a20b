"""A new trust root after the old one expired: two sources that are not the same show it, and a person agrees.

A root that is too old proves nothing: validators that left long ago could have signed anything since. So the new one
comes from outside, as the first one did. Where a node still has the headers in between, their chain of hashes leads
from the new root back to the old one; where not, the person says in so many words that the link is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dllm_chat.network.errors import RootNotAgreed
from dllm_chat.network.lighting import MakeSource
from dllm_chat.network.open_light import OpenLight
from dllm_chat.network.witnesses import distinct
from dllm_protocol.errors import UsageRefused, VerificationFailed
from dllm_protocol.header import Header
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient, TrustOptions
from light_node.errors import HeaderRefused, HeightUnavailable
from light_node.source import RpcSource, Source
from light_node.trust_store import TrustStore

Agree = Callable[[Header, str, str], None]
"""(header, one source, the other): returns when the person agrees; raises what stops it when not."""


class NotLinked(VerificationFailed):
    """A new root that cannot be shown to descend from the old one."""

    code = "E_NOT_LINKED"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A trust root that counts from now on."""

    header: Header
    old: Header | None
    """Highest header that was trusted before."""
    is_linked: bool
    """Whether hashes lead from the new root to it."""


async def refresh(
    light: OpenLight,
    sources: Sequence[str],
    agree: Agree,
    *,
    height: int = 0,
    give_up_link: bool = False,
    make_source: MakeSource = RpcSource,
) -> Refreshed:
    """Replace an expired root.

    Args:
        sources: websockets of two different nodes.
        agree: asked with the header that both show.
        height: of the new root; the newest that both have when 0.
        give_up_link: forget what was trusted instead of linking to it.

    Raises:
        UsageRefused: fewer than two nodes, or the same node twice.
        RootNotAgreed: they show different headers.
        NotLinked: no hashes lead to what was trusted (any more).
        And what the nodes and the person raise.
    """
    one, other = _two(sources)
    async with _opened(make_source, one) as first, _opened(make_source, other) as second:
        header = await _agreed_header(first, second, height)
        agree(header, one, other)
        trust = trust_options_of(light.bundle, header.height, header.hash())
        old = light.store.latest()
        if give_up_link:
            await _take_unlinked(light, trust, first, second)
        else:
            await _take_linked(light, trust, first, second)
    return Refreshed(header, old.header if old else None, not give_up_link)


async def _take_linked(light: OpenLight, trust: TrustOptions, first: Source, second: Source) -> None:
    try:
        await _client(light, light.store, trust, first, second).refresh_root(trust)
    except (HeightUnavailable, HeaderRefused) as error:
        raise NotLinked(
            f"the new root {trust.height} cannot be linked to what was trusted: {error.message}",
            hint="ask a node that keeps older headers with --source, or give the link up with --unlinked",
        ) from error


async def _take_unlinked(light: OpenLight, trust: TrustOptions, first: Source, second: Source) -> None:
    """Check the root by itself in a store of its own, then put it in the place of everything, in one transaction."""
    with (
        TemporaryDirectory(prefix="dllm-root-") as folder,
        TrustStore(Path(folder) / "light.db", light.bundle.chain_id) as fresh,
    ):
        await _client(light, fresh, trust, first, second).refresh_root(trust)
        block = fresh.latest()
    if block is None:
        raise NotLinked(f"the new root {trust.height} could not be stored", hint="try again")
    light.store.replace_all(block)


def _client(
    light: OpenLight, store: TrustStore, trust: TrustOptions, first: Source, second: Source
) -> LightClient:
    return LightClient(light.bundle.chain_id, trust, store, first, [second], clock=light.client.clock)


def _two(sources: Sequence[str]) -> tuple[str, str]:
    ordered = distinct(sources)
    if len(ordered) < 2:
        named = ordered[0] if ordered else "no node"
        raise UsageRefused(
            f"two different nodes are needed to agree on a root, known is {named}",
            hint="name another one, run by somebody else: --source ws://HOST:PORT/websocket",
        )
    return ordered[0], ordered[1]


async def _agreed_header(first: Source, second: Source, height: int) -> Header:
    """The header that two nodes show for one height."""
    if not height:
        tips = await asyncio.gather(first.signed_header(None), second.signed_header(None))
        height = min(one.header.height for one in tips)
    shown = await asyncio.gather(first.signed_header(height), second.signed_header(height))
    here, there = (one.header for one in shown)
    if here.hash() != there.hash():
        raise RootNotAgreed(
            f"height {height}: {first.name} has header {here.hash().hex()}, {second.name} has {there.hash().hex()}",
            hint="one of them lies, or the chain forked: ask the network's people on another way",
        )
    return here


@asynccontextmanager
async def _opened(make_source: MakeSource, url: str) -> AsyncIterator[Source]:
    source = make_source(url)
    try:
        yield source
    finally:
        await source.close()
