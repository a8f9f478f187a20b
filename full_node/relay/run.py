"""A whole relay: its address, its metrics; run and stopped in order."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from ipaddress import ip_address

from dllm_protocol.exposition import Family
from dllm_protocol.relay import SUBPROTOCOL, relay_name
from full_node.files import write_private
from full_node.metrics.server import MetricsServer
from full_node.relay.core import Relay
from full_node.relay.home import RelayHome
from full_node.relay.limits import RelayLimits, RelayRefused
from full_node.relay.metrics import relay_families
from full_node.relay.server import RelayServer
from full_node.rpc.guard import LOOPBACK_NAMES, Door

HTTPS_PORT = 443
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """How to run a relay.

    Attributes:
        host: address to listen on.
        port: 0 lets the system choose.
        names: ``HOST`` (port 443) or ``HOST:PORT`` as its users dial it, where that is not the address it listens on.
        limits: how much of the machine strangers may use.
        behind_proxy: whether a reverse proxy says who connects.
        metrics: where a monitor asks; None = nowhere.
    """

    host: str
    port: int
    names: tuple[str, ...]
    limits: RelayLimits
    behind_proxy: bool = False
    metrics: Door | None = None


async def run_relay(
    home: RelayHome,
    options: RelayOptions,
    stopped: Callable[[], Awaitable[object]],
    on_ready: Callable[[dict[str, object]], None],
) -> None:
    """Forward until `stopped` returns. The caller holds the folder.

    Raises:
        RelayRefused: the limits or names make no sense, or the address is taken.
        CannotListen: the metrics' address is taken.
    """
    async with AsyncExitStack() as stack:
        on_ready(await _start(home, options, stack))
        await stopped()
        log.info("stopping")


async def _start(home: RelayHome, options: RelayOptions, stack: AsyncExitStack) -> dict[str, object]:
    names = frozenset(name_of(one) for one in options.names)
    if not names and not own_names(options.host, options.port):
        raise RelayRefused(
            f"{options.host} is no address that anybody dials",
            hint="say how people reach it with --name HOST",
        )
    # A name may stand for several addresses, each of which would get a port of its own.
    host = "127.0.0.1" if options.host == "localhost" else options.host
    relay = Relay(options.limits.check(), secrets.token_bytes)
    server = RelayServer(relay, options.limits, behind_proxy=options.behind_proxy)
    stack.push_async_callback(server.stop)
    try:
        port = await server.start(host, options.port)
    except OSError as error:
        raise RelayRefused(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}",
            hint="give another --listen; port 0 lets the system choose",
        ) from error
    relay.names = names | own_names(options.host, port)
    running: dict[str, object] = {
        "address": relay_name(host, port),
        "url": f"ws://{relay_name(host, port)}" if own_names(host, port) else "",
        "names": sorted(relay.names),
        "protocol": SUBPROTOCOL,
        "pid": os.getpid(),
    }
    if options.metrics is not None:

        async def collect() -> Iterable[Family]:
            return relay_families(version("dllm"), relay)

        running["metrics_address"] = await stack.enter_async_context(MetricsServer(options.metrics, collect))
    write_private(home.listening, json.dumps(running).encode() + b"\n")
    stack.callback(home.listening.unlink, missing_ok=True)
    log.info("listening host=%s port=%d names=%s", options.host, port, ",".join(sorted(relay.names)))
    return running


def name_of(text: str) -> str:
    """A relay's name from ``HOST`` or ``HOST:PORT``. Raises RelayRefused."""
    host, port = text, HTTPS_PORT
    head, colon, tail = text.rpartition(":")
    if colon and not text.endswith("]") and (":" not in head or head.startswith("[")):
        if not tail.isascii() or not tail.isdigit() or not 1 <= int(tail[:6]) <= 65_535:
            raise RelayRefused(f"--name is {text[:100]!r}: the port must be 1 to 65535")
        host, port = head, int(tail)
    plain = host.strip("[]")
    if (
        not plain
        or not plain.isascii()
        or not plain.isprintable()
        or set(plain) & set("/@?# ")
        or len(plain) > 253
    ):
        raise RelayRefused(f"--name is {text[:100]!r}; it must be HOST or HOST:PORT, without a scheme")
    return relay_name(host, port)


def own_names(host: str, port: int) -> frozenset[str]:
    """What a relay goes by from where it listens: nothing where that is every address of the machine."""
    if host == "localhost":
        hosts = LOOPBACK_NAMES
    else:
        try:
            address = ip_address(host)
        except ValueError:
            return frozenset({relay_name(host, port)})
        if address.is_unspecified:
            return frozenset()
        hosts = LOOPBACK_NAMES if address.is_loopback else frozenset({host})
    return frozenset(relay_name(one, port) for one in hosts)
