"""`dllm network join`: what the person is shown, asked and told."""

from __future__ import annotations

from dllm_chat.cli.confirming import ask_line
from dllm_chat.cli.output import Report, fields, note, progress
from dllm_chat.cli.passwords import person_is_there
from dllm_chat.cli.service import settings
from dllm_chat.network.fetching import fetch_bundle
from dllm_chat.network.joining import Joined, join
from dllm_protocol.bundle import SignedBundle, fingerprint
from dllm_protocol.errors import Declined


async def join_from(
    target: str, typed_fingerprint: str, witnesses: list[str], *, relay: str = "", plain_relay: bool = False
) -> Report:
    """Fetch, check and join."""
    progress(f"fetching {target}" if "://" in target else "reading the bundle")
    offered = await fetch_bundle(target, relay=relay, plain_relay=plain_relay)
    paths, _ = settings()
    joined = await join(
        paths,
        offered,
        ask_fingerprint=lambda signed: _asked(signed, offered.origin),
        typed_fingerprint=typed_fingerprint,
        witnesses=witnesses,
    )
    return _report(joined)


def _asked(signed: SignedBundle, origin: str) -> str:
    """The fingerprint that the person knows from elsewhere. It is typed, because what is shown is easily agreed to."""
    note(f"The bundle from {origin}")
    note(f"describes the network {signed.bundle.chain_id}.")
    note("Its publisher has a fingerprint of 24 hex digits. Ask for it on another way than")
    note("the bundle came: by telephone, on paper, on a page that you know.")
    if not person_is_there():
        raise Declined(
            "the publisher's fingerprint is needed, and there is nobody to ask", hint="give --fingerprint"
        )
    return ask_line("Fingerprint: ")


def _report(joined: Joined) -> Report:
    bundle = joined.signed.bundle
    shown = fingerprint(joined.signed.signer)
    data = {
        "chain_id": bundle.chain_id,
        "signer": joined.signed.signer.hex(),
        "fingerprint": shown,
        "confirmed_by": joined.confirmed_by,
        "sources": list(bundle.sources),
        "witnesses": [*bundle.witnesses],
        "own_witnesses": list(joined.witnesses),
        "seeds": list(bundle.seeds),
        "faucet": bundle.faucet,
        "test_network": bundle.is_test,
        "trust_height": bundle.trust_height,
        "trust_hash": bundle.trust_hash.hex().upper(),
        "verified_height": joined.verified_height,
        "unanswered": joined.unanswered,
    }
    told: dict[str, object] = {
        "joined": bundle.chain_id
        + (" (a test network: its tokens are worth nothing)" if bundle.is_test else ""),
        "publisher": f"{shown}, by {joined.confirmed_by}",
        "trust root": f"height {bundle.trust_height}\n{data['trust_hash']}",
        "own witness": "\n".join(joined.witnesses) or "none: everything runs on this machine",
        "verified": f"up to height {joined.verified_height}" if joined.verified_height else "nothing yet",
    }
    if joined.unanswered:
        told["because"] = f"{joined.unanswered}; the root is checked at the first use"
    if bundle.faucet:
        told["faucet"] = bundle.faucet
    return Report(data, fields(told))
