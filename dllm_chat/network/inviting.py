"""Serving one bundle to the local network for a while, to whoever was told the code."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from aiohttp import web

from dllm_chat.network.addresses import is_local
from dllm_protocol.errors import NetworkUnreachable, UsageRefused
from dllm_protocol.invitation import BUNDLE_PATH, Invitation, bundle_hash_of

CONNECTIONS_MAX = 32
STOP_WAIT_S = 1.0
_ANYWHERE = ("192.0.2.1", 9)
"""An address for documentation: choosing a route to it sends nothing."""


class BundleServer:
    """Answers one path with one public file. Nothing can be asked, changed or found here besides."""

    def __init__(self, raw: bytes, address: IPv4Address, port: int = 0) -> None:
        """Prepare; nothing listens before `start`. Port 0 lets the system choose."""
        self._raw = raw
        self._address = address
        self._port = port
        self._runner: web.AppRunner | None = None
        self.served = 0
        """How many times the bundle was fetched."""

    async def start(self) -> Invitation:
        """Listen, and say what people need to be told.

        Raises:
            UsageRefused: the address is not this machine's, or taken.
        """
        application = web.Application(client_max_size=1024)
        application.router.add_get(BUNDLE_PATH, self._give, allow_head=False)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_WAIT_S)
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, str(self._address), self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise UsageRefused(
                f"cannot listen at {self._address}:{self._port}: {error.strerror}",
                hint="name an address of this machine with --address",
            ) from error
        port = int(runner.addresses[0][1])
        return Invitation(self._address, port, bundle_hash_of(self._raw))

    async def stop(self) -> None:
        """Serve no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _give(self, _request: web.Request) -> web.Response:
        server = self._runner.server if self._runner is not None else None
        if server is not None and len(server.connections) > CONNECTIONS_MAX:
            raise web.HTTPServiceUnavailable(text="too many at once", headers={"Connection": "close"})
        self.served += 1
        response = web.Response(body=self._raw, content_type="application/octet-stream")
        response.force_close()
        return response


def local_address(named: str) -> IPv4Address:
    """The address to invite to: the one named, else this machine's in its local network.

    Raises:
        UsageRefused: what was named is no such address.
        NetworkUnreachable: there is no local network.
    """
    if named:
        try:
            address = IPv4Address(named)
        except ValueError as error:
            raise UsageRefused(f"{named[:60]!r} is no IPv4 address") from error
        if not is_local(address):
            raise UsageRefused(
                f"{address} is not in a local network",
                hint="for people elsewhere, use --relay, or put the file of `dllm network bundle` at an https address",
            )
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
            address = IPv4Address(probe.getsockname()[0])
        except OSError as error:
            raise NetworkUnreachable(
                f"this machine is in no network: {error.strerror}", hint="name an address with --address"
            ) from error
    if not is_local(address):
        raise NetworkUnreachable(
            f"this machine's address is {address}, which is not in a local network",
            hint="name one with --address, or use --relay, or `dllm network bundle` and an https address",
        )
    return address
