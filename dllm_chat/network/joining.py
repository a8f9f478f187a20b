"""Joining a network: whose word it is, who else would notice a lie, and whether it goes on from what is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dllm_chat.network.addresses import websocket_url
from dllm_chat.network.fetching import Offered
from dllm_chat.network.lighting import MakeSource, light_client_of
from dllm_chat.network.outside_word import require_outside_word
from dllm_chat.network.pins import PACKAGED, Pins
from dllm_chat.network.witnesses import distinct, keep_witnesses, own_witnesses, require_outside_witness
from dllm_chat.paths import Paths
from dllm_chat.session.networks import (
    BundleRefused,
    decode_bundle,
    join_network,
    known_network,
    light_store_file,
)
from dllm_protocol.bundle import NetworkBundle, SignedBundle, fingerprint
from dllm_protocol.errors import NetworkUnreachable, TimedOut, VerificationFailed
from light_node.client import LightClient
from light_node.clock import Clock
from light_node.errors import HeightUnavailable, RootMismatch
from light_node.source import RpcSource
from light_node.trust_store import TrustStore

AskFingerprint = Callable[[SignedBundle], str]
"""Returns the fingerprint that the person typed; raises what stops the joining when there is nobody."""


MakeClient = Callable[[TrustStore], LightClient]


@dataclass(frozen=True, slots=True)
class Joined:
    """A network that is used from now on."""

    signed: SignedBundle
    witnesses: tuple[str, ...]
    """The person's own."""
    confirmed_by: str
    """How its signer is known."""
    verified_height: int
    """Highest header that was verified while joining; 0 where no node answered."""
    unanswered: str
    """Why nothing was verified yet; empty when something was."""


async def join(
    paths: Paths,
    offered: Offered,
    *,
    ask_fingerprint: AskFingerprint,
    typed_fingerprint: str = "",
    witnesses: Sequence[str] = (),
    pins: Pins = PACKAGED,
    make_source: MakeSource = RpcSource,
    clock: Clock | None = None,
) -> Joined:
    """Use an offered network from now on, or raise and change nothing.

    Args:
        ask_fingerprint: asked for the fingerprint that the person knows, where nothing else vouches for the signer.
        typed_fingerprint: what the person said of their own accord; it must fit, whoever else vouches.
        witnesses: nodes that the person named, from elsewhere than the bundle.

    Raises:
        BundleRefused: damaged, unsigned, or another genesis than the chain's that is known here.
        WitnessNeeded: nobody from outside the bundle.
        RootNotAgreed: its nodes answer, and nobody from outside the bundle shows its trust root.
        RootMismatch: its trust root is not on the chain that is trusted here.
        Declined, VerificationFailed, NetworkUnreachable, UsageRefused
    """
    signed = decode_bundle(offered.raw)
    if not signed.signer or not signed.signature_fits:
        raise BundleRefused("the bundle's signature does not fit", hint="fetch it again from its publisher")
    bundle = signed.bundle
    known = known_network(paths, bundle.chain_id)
    if known is not None and known.bundle.genesis != bundle.genesis:
        raise BundleRefused(
            f"network {bundle.chain_id} is known here with another genesis",
            hint="whoever made this bundle made a chain with the same name on purpose: do not use it",
        )
    confirmed_by = "" if typed_fingerprint else _vouched(offered, signed, known, pins)
    if not confirmed_by:
        _require_fingerprint(signed, typed_fingerprint or ask_fingerprint(signed))
        confirmed_by = "fingerprint"
    own = distinct(
        [
            *(websocket_url(one) for one in witnesses),
            *own_witnesses(paths, bundle.chain_id),
            *pins.witnesses.get(bundle.chain_id, ()),
        ]
    )
    require_outside_witness(bundle, own)

    def make_client(store: TrustStore) -> LightClient:
        return light_client_of(bundle, own, store, make_source=make_source, clock=clock)

    height, unanswered = await _checked(paths, bundle, known, make_client)
    if height and known is None:
        await require_outside_word(bundle, own, make_source)
    join_network(paths, offered.raw, confirmed_signer=signed.signer)
    keep_witnesses(paths, bundle.chain_id, own)
    return Joined(signed, own, confirmed_by, height, unanswered)


def _require_fingerprint(signed: SignedBundle, typed: str) -> None:
    shown = fingerprint(signed.signer)
    if "".join(typed.split()).lower() != "".join(shown.split()):
        raise VerificationFailed(
            f"the bundle's signer is {shown}, expected was {typed.strip()[:40] or 'nothing'}",
            hint="do not join: this bundle is not from whom you think",
        )


def _vouched(offered: Offered, signed: SignedBundle, known: SignedBundle | None, pins: Pins) -> str:
    """Who vouches for the signer without the person's comparing; empty when nobody does."""
    if signed.signer in pins.signers:
        return f"the package, which knows {pins.signers[signed.signer]}"
    if offered.is_named:
        return "the invitation"
    if known is not None and known.signer == signed.signer:
        return "an earlier comparison"
    return ""


async def _checked(
    paths: Paths, bundle: NetworkBundle, known: SignedBundle | None, make_client: MakeClient
) -> tuple[int, str]:
    """Hold the bundle's root against what is trusted already, or at least against all nodes.

    Returns:
        The highest verified height, and why there is none.
    """
    file = light_store_file(paths, bundle.chain_id)
    if known is not None and file.exists():
        with TrustStore(file, bundle.chain_id) as store:
            trusted = store.latest()
        if trusted is not None:
            return await _linked(file, bundle, make_client), ""
    try:
        with TemporaryDirectory(prefix="dllm-join-") as folder:
            return await _linked(Path(folder) / "light.db", bundle, make_client), ""
    except (NetworkUnreachable, TimedOut) as error:
        # Nothing is trusted yet that could be lost. The root is held against every node at the first use.
        return 0, error.message


async def _linked(file: Path, bundle: NetworkBundle, make_client: MakeClient) -> int:
    """The tip, after the bundle's root turned out to be on the chain that a store trusts."""
    with TrustStore(file, bundle.chain_id) as store:
        client = make_client(store)
        try:
            found = await client.verified_header(bundle.trust_height)
            if found.hash() != bundle.trust_hash:
                raise RootMismatch(
                    f"the bundle's root {bundle.trust_height} is {bundle.trust_hash.hex()}, "
                    f"the chain trusted here has {found.hash().hex()}",
                    hint="the bundle is forged, or of a fork: what was trusted stays",
                )
            return (await client.sync()).height
        except HeightUnavailable as error:
            raise VerificationFailed(
                f"the bundle's root {bundle.trust_height} cannot be linked to what is trusted: {error.message}",
                hint="fetch a newer bundle",
            ) from error
        finally:
            await client.close()
