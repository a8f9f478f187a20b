"""A bundle's trust root as a node shows it that the bundle's publisher did not choose."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_chat.network.errors import RootNotAgreed
from dllm_chat.network.lighting import MakeSource
from dllm_chat.network.witnesses import outside
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.errors import DllmError


async def require_outside_word(
    bundle: NetworkBundle, witnesses: Sequence[str], make_source: MakeSource
) -> None:
    """Refuse a root that no witness from outside the bundle shows, where there is such a witness.

    The light client passes over a witness that is away or behind as long as another one matches. A publisher who made
    a chain up runs all the others, so before anything is trusted the one from outside has to say so itself.

    Raises:
        RootNotAgreed: naming what each of them said instead.
    """
    told: list[str] = []
    for url in outside(bundle, witnesses):
        source = make_source(url)
        try:
            shown = (await source.signed_header(bundle.trust_height)).header.hash()
        except DllmError as error:
            told.append(f"{source.name}: {error.message}")
        else:
            if shown == bundle.trust_hash:
                return
            told.append(f"{source.name} has {shown.hex()}")
        finally:
            await source.close()
    if told:
        raise RootNotAgreed(
            f"the bundle's root {bundle.trust_height} is {bundle.trust_hash.hex()}, "
            f"nobody from outside the bundle shows it: {'; '.join(told)}",
            hint="name a witness that you trust and that answers: --witness ws://HOST:PORT/websocket",
        )
