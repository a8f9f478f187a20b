"""A bundle is fetched within bounds: size, time, hops, and never unprotected unless its bytes are named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiohttp import web

from dllm_chat.network import fetching
from dllm_chat.network.fetching import BUNDLE_BYTES_MAX, REDIRECTS_MAX, fetch_bundle
from dllm_chat.network.inviting import BundleServer, local_address
from dllm_protocol.errors import NetworkUnreachable, NotFound, TimedOut, UsageRefused, VerificationFailed
from dllm_protocol.invitation import (
    BadInvitation,
    Invitation,
    InvitationRefused,
    bundle_hash_of,
    hash_words,
    write_code,
)

RAW = b"a bundle, as far as fetching cares"
HERE = IPv4Address("127.0.0.1")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def site(answer: Answer) -> AsyncIterator[str]:
    """A web server on loopback; its address."""
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, str(HERE), 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def give(_request: web.Request) -> web.Response:
    return web.Response(body=RAW)


async def test_a_file_an_address_and_an_invitation_give_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.bundle"
    file.write_bytes(RAW)
    found = await fetch_bundle(str(file))
    assert (found.raw, found.is_named) == (RAW, False)
    async with site(give) as address:
        plain = await fetch_bundle(f"{address}/a.bundle")
        named = await fetch_bundle(f"{address}/a.bundle#{hash_words(RAW)}")
    assert (plain.raw, plain.is_named) == (RAW, False)
    assert (named.raw, named.is_named) == (RAW, True)
    server = BundleServer(RAW, HERE)
    try:
        invited = await fetch_bundle(write_code(await server.start()))
    finally:
        await server.stop()
    assert (invited.raw, invited.is_named, server.served) == (RAW, True, 1)


async def test_other_bytes_than_the_named_ones_are_refused() -> None:
    server = BundleServer(b"another bundle", HERE)
    try:
        there = await server.start()
        code = write_code(Invitation(there.address, there.port, bundle_hash_of(RAW)))
        with pytest.raises(InvitationRefused):
            await fetch_bundle(code)
    finally:
        await server.stop()
    async with site(give) as address:
        with pytest.raises(InvitationRefused):
            await fetch_bundle(f"{address}/x#{hash_words(b'other')}")
        with pytest.raises(BadInvitation):
            await fetch_bundle(f"{address}/x#anchor")


async def test_an_invitation_leads_to_the_local_network_only() -> None:
    for address, port in (("8.8.8.8", 80), ("224.0.0.1", 80), ("127.0.0.1", 0)):
        with pytest.raises(BadInvitation, match="not in a local network"):
            await fetch_bundle(write_code(Invitation(IPv4Address(address), port, bytes(10))))


async def test_unprotected_addresses_are_refused_before_anything_is_asked() -> None:
    for url in ("http://node.example/a", "http://192.168.0.9/a", "https://[bad"):
        with pytest.raises(UsageRefused):
            await fetch_bundle(url)


async def test_redirects_are_followed_a_few_times_and_never_out_of_protection() -> None:
    async def onwards(request: web.Request) -> web.StreamResponse:
        left = int(request.match_info["path"])
        if left == 0:
            return web.Response(body=RAW)
        raise web.HTTPFound(f"/{left - 1}")

    async with site(onwards) as address:
        assert (await fetch_bundle(f"{address}/{REDIRECTS_MAX}")).raw == RAW
        with pytest.raises(VerificationFailed, match="redirects"):
            await fetch_bundle(f"{address}/{REDIRECTS_MAX + 1}")

    async def away(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://node.example/a")

    async with site(away) as address:
        with pytest.raises(UsageRefused, match="not protected"):
            await fetch_bundle(f"{address}/a")


async def test_too_large_too_slow_missing_and_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
        except ConnectionError:
            return response  # the reader has had enough

    async with site(flood) as address:
        with pytest.raises(VerificationFailed, match="it is no bundle"):
            await fetch_bundle(f"{address}/a")
    large = tmp_path / "large"
    large.write_bytes(bytes(BUNDLE_BYTES_MAX + 1))
    with pytest.raises(VerificationFailed, match="it is no bundle"):
        await fetch_bundle(str(large))

    async def nothing(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPNotFound

    async with site(nothing) as address:
        with pytest.raises(NotFound, match="404"):
            await fetch_bundle(f"{address}/a")
    with pytest.raises(NetworkUnreachable):
        await fetch_bundle(f"{address}/a")
    with pytest.raises(NotFound):
        await fetch_bundle(str(tmp_path / "none"))
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.05)
        except ConnectionError:
            return response

    async with site(drip) as address:
        with pytest.raises(TimedOut):
            await fetch_bundle(f"{address}/a")


def test_an_address_to_invite_to_is_local_or_named() -> None:
    assert local_address("192.168.7.7") == IPv4Address("192.168.7.7")
    for bad in ("8.8.8.8", "node.example", "::1"):
        with pytest.raises(UsageRefused):
            local_address(bad)


async def test_an_address_that_is_not_ours_cannot_be_invited_to() -> None:
    with pytest.raises(UsageRefused, match="cannot listen"):
        await BundleServer(RAW, IPv4Address("10.255.255.254")).start()
