"""`dllm network bundle|invite`: the joined network, described for others."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dllm_chat.cli.long_running import announce, ended, told_to_stop
from dllm_chat.cli.output import Report, fields, note, progress
from dllm_chat.cli.service import settings
from dllm_chat.network.inviting import BundleServer, local_address
from dllm_chat.network.open_light import open_light
from dllm_chat.network.publishing import sign_as_person, with_fresh_root
from dllm_chat.paths import Paths, write_private
from dllm_chat.session.networks import joined_network
from dllm_protocol.bundle import SignedBundle, fingerprint
from dllm_protocol.errors import NotFound
from dllm_protocol.invitation import hash_words, write_code

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
                f"for {minutes} minute{'s' if minutes > 1 else ''}, or until Ctrl-C. The code is no secret: it says "
                "where\n"
                "the bundle lies and which one it must be."
            )
            announce(Report(data, text))
            try:
                async with asyncio.timeout(minutes * SECONDS_PER_MINUTE):
                    await told.wait()
            except TimeoutError:
                progress("the time is over")
        finally:
            await server.stop()
    note(f"The bundle was fetched {server.served} times.")
    raise ended()


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
