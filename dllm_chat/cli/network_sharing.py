"""`dllm network bundle|invite`: the joined network, described for others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path

from dllm_chat.cli.long_running import announce, ended, told_to_stop
from dllm_chat.cli.output import Report, fields, note, progress
from dllm_chat.cli.service import settings
from dllm_chat.network.inviting import BundleServer, local_address
from dllm_chat.network.open_light import open_light
from dllm_chat.network.publishing import sign_as_person, with_fresh_root
from dllm_chat.network.relaying import RelayedBundle
from dllm_chat.paths import Paths, write_private
from dllm_chat.session.networks import joined_network
from dllm_protocol.bundle import SignedBundle, fingerprint
from dllm_protocol.errors import NotFound
from dllm_protocol.invitation import hash_words, write_code
from dllm_protocol.relay_invitation import write_relay_code
from light_node.relay.urls import RelayUrl

SECONDS_PER_MINUTE = 60


async def write_bundle(out: Path) -> Report:
    """The network in use in a new bundle, with a root verified now."""
    paths, _ = settings()
    signed = await _fresh_bundle(paths)
    raw = signed.encode()
    write_private(out, raw)
    data = _data(signed, raw) | {"file": str(out)}
    shown = {
        "file": str(out),
        "network": signed.bundle.chain_id,
        "trust root": f"height {signed.bundle.trust_height}\n{data['trust_hash']}",
        "fingerprint": f"{data['fingerprint']}\nwhich people compare on another way; or, once the file is online,",
        "join": f"dllm network join https://HOST/{out.name}#{data['bundle_hash']}",
    }
    return Report(data, fields(shown))


async def invite(minutes: int, address: str, port: int) -> Report:
    """Serve a fresh bundle in the local network; the code tells where and which."""
    paths, _ = settings()
    here = local_address(address)
    signed = await _fresh_bundle(paths)
    raw = signed.encode()
    server = BundleServer(raw, here, port)
    async with told_to_stop() as told:
        invitation = await server.start()
        try:
            code = write_code(invitation)
            data = _data(signed, raw) | {
                "code": code,
                "address": f"{here}:{invitation.port}",
                "minutes": minutes,
            }
            text = (
                f"People in your local network join {signed.bundle.chain_id} with\n\n"
                f"  dllm network join {code}\n\n"
                f"for {_span(minutes)}, or until Ctrl-C. The code is no secret: it says where\n"
                "the bundle lies and which one it must be."
            )
            announce(Report(data, text))
            await _serve_for(minutes, told)
        finally:
            await server.stop()
    note(f"The bundle was fetched {server.served} times.")
    raise ended()


async def invite_by_relay(minutes: int, url: RelayUrl, *, plain: bool) -> Report:
    """Serve a fresh bundle through a relay; the code tells which, and where the two sides meet there."""
    paths, _ = settings()
    signed = await _fresh_bundle(paths)
    raw = signed.encode()
    shared = RelayedBundle(raw, url, progress)
    async with told_to_stop() as told:
        await shared.start()
        try:
            code = write_relay_code(shared.invitation)
            data = _data(signed, raw) | {"code": code, "relay": url.url, "minutes": minutes}
            text = (
                f"People anywhere join {signed.bundle.chain_id} with\n\n"
                f"  dllm network join {code} --relay {url.url}{' --plain-relay' if plain else ''}\n\n"
                f"for {_span(minutes)}, or until Ctrl-C; the code is enough where their\n"
                "config.toml names the relay. It can neither read nor exchange the bundle;\n"
                "whoever has the code can fetch it."
            )
            announce(Report(data, text))
            await _serve_for(minutes, told, shared.run())
        finally:
            await shared.stop()
    note(f"The bundle was fetched {shared.served} times.")
    raise ended()


async def _serve_for(
    minutes: int, told: asyncio.Event, work: Coroutine[None, None, None] | None = None
) -> None:
    """Wait for the time to be over or for the person; what ``work`` raises ends it too."""
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(told.wait())]
    if work is not None:
        tasks.append(asyncio.create_task(work))
    try:
        done, _ = await asyncio.wait(
            tasks, timeout=minutes * SECONDS_PER_MINUTE, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not done:
        progress("the time is over")
    for task in done:
        task.result()


def _span(minutes: int) -> str:
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


async def _fresh_bundle(paths: Paths) -> SignedBundle:
    joined = joined_network(paths)
    if joined is None:
        raise NotFound(
            "no network was joined, and the embedded one never leaves this machine",
            hint="join a network first, or start one: dllm devnet up",
        )
    _, config = settings()
    async with open_light(paths, config, progress) as light:
        progress("verifying the chain")
        root = await light.client.sync()
        return sign_as_person(paths, with_fresh_root(light.bundle, light.own_witnesses, root))


def _data(signed: SignedBundle, raw: bytes) -> dict[str, object]:
    return {
        "chain_id": signed.bundle.chain_id,
        "trust_height": signed.bundle.trust_height,
        "trust_hash": signed.bundle.trust_hash.hex().upper(),
        "fingerprint": fingerprint(signed.signer),
        "bundle_hash": hash_words(raw),
        "sources": list(signed.bundle.sources),
        "witnesses": list(signed.bundle.witnesses),
    }
