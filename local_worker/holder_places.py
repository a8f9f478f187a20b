"""Asks the holders of some layers, as the proved chain lists them, where they seed pieces. Nobody is believed.

A holder is asked over HTTP at the endpoints of its proved record, and says a port (`dllm_protocol.seeding_place`). A
place is that port at the very address that answered: a stranger can send us to no one but itself. What comes from there
is compared with the manifest like everything else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from secrets import SystemRandom
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from dllm_protocol.endpoints import BadEndpoint, DirectEndpoint, read_endpoint
from dllm_protocol.errors import DllmError, MalformedBytes
from dllm_protocol.holder_book import HolderEntry
from dllm_protocol.seeding_place import SEEDING_BYTES_MAX, SEEDING_PATH, SeedingPlace
from local_worker.chain import Chain
from local_worker.swarm.sources import Place

_log = logging.getLogger(__name__)

HOLDERS_PER_LAYER: Final = 4
HOLDERS_MAX: Final = 32
"""That are asked for one fetch."""
ENDPOINTS_MAX: Final = 2
"""Of one holder, without a relay."""
ADDRESSES_MAX: Final = 2
"""Of one name."""
AT_ONCE: Final = 8
ANSWER_S: Final = 5.0
ALL_S: Final = 30.0
"""For all of them together; who has answered until then is taken."""
_PORTS: Final = {"ws": 80, "wss": 443}


def holders_to_ask(entries: Iterable[HolderEntry], first: int, end: int) -> list[HolderEntry]:
    """Holders of the layers [first, end), a few for each layer: those first who serve, else in the order given.

    Who waits, or has none of the layers, is left out.
    """
    missing = dict.fromkeys(range(first, end), HOLDERS_PER_LAYER)
    chosen: list[HolderEntry] = []
    for one in sorted(entries, key=lambda entry: not entry.is_serving):
        layers = range(max(first, one.first_layer), min(end, one.end_layer))
        if len(chosen) < HOLDERS_MAX and any(missing[layer] for layer in layers):
            chosen.append(one)
            for layer in layers:
                missing[layer] = max(0, missing[layer] - 1)
    return chosen


def may_be_asked(address: str, *, near: bool) -> bool:
    """Whether an address that a stranger named may be connected to.

    Args:
        near: addresses of this machine and of private networks, too.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_multicast or found.is_unspecified or found.is_reserved:
        return found.is_loopback and near
    return found.is_global or near


@dataclass(frozen=True, slots=True)
class HolderPlaces:
    """Where holders seed.

    Attributes:
        near: take addresses of this machine and of private networks, too.
        mix: puts holders into an order of its own, so that not everybody asks the same ones.
    """

    near: bool = False
    mix: Callable[[list[HolderEntry]], None] = SystemRandom().shuffle

    async def find(self, chain: Chain, model: str, first: int, end: int) -> tuple[Place, ...]:
        """Places at which holders of the layers [first, end) seed; none where nobody says so in time.

        What goes wrong on the way is logged: whoever fetches may have other sources.
        """
        places: list[Place] = []
        try:
            async with asyncio.timeout(ALL_S):
                book = await chain.holder_book(model)
                entries = list(book.entries) if book is not None else []
                self.mix(entries)
                wanted = holders_to_ask(entries, first, end)
                await _a_few_at_a_time([self._ask(chain, one.provider, places) for one in wanted])
        except DllmError as error:
            _log.warning("the holders of %s are not known: %s", model, error.message)
        except TimeoutError:
            _log.warning("not all holders of %s have answered within %.0f s", model, ALL_S)
        found = tuple(dict.fromkeys(places))
        _log.info("%d holders of layers %d:%d of %s seed them", len(found), first, end, model)
        return found

    async def _ask(self, chain: Chain, provider: bytes, places: list[Place]) -> None:
        try:
            record = await chain.provider(provider)
        except DllmError as error:
            _log.info("holder %s is not proved: %s", provider.hex()[:16], error.message)
            return
        for url in _direct_urls(record.endpoints if record is not None else ()):
            place = await self._ask_at(url)
            if place is not None:
                places.append(place)
                return

    async def _ask_at(self, url: str) -> Place | None:
        """Where the holder behind an endpoint seeds; None where it does not say."""
        parts = urlsplit(url)
        for address in await self._addresses(parts.hostname or "", parts.port or _PORTS[parts.scheme]):
            try:
                async with asyncio.timeout(ANSWER_S):
                    port = await _port_said_by(url, address)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, MalformedBytes) as error:
                _log.debug("no seeding place at %s: %s", address, type(error).__name__)
                continue
            return address, port
        return None

    async def _addresses(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_S):
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return []
        addresses = list(dict.fromkeys(str(one[4][0]) for one in infos))
        return [one for one in addresses if may_be_asked(one, near=self.near)][:ADDRESSES_MAX]


def _direct_urls(endpoints: Sequence[str]) -> list[str]:
    """Websockets of a provider's own that can be taken apart: a stranger wrote them."""
    found = []
    for text in endpoints:
        try:
            endpoint = read_endpoint(text)
            if not isinstance(endpoint, DirectEndpoint):
                continue  # who has no port for clients has none for peers
            parts = urlsplit(endpoint.url)
            if parts.hostname and parts.port != 0 and "@" not in parts.netloc:
                found.append(endpoint.url)
        except (BadEndpoint, ValueError):
            continue
    return found[:ENDPOINTS_MAX]


async def _port_said_by(url: str, address: str) -> int:
    """Ask at one address, whatever the name leads to meanwhile.

    Raises:
        MalformedBytes: the answer is no seeding place.
        ClientError, OSError, ValueError: there is none.
    """
    parts = urlsplit(url)
    page = parts._replace(
        scheme={"ws": "http", "wss": "https"}[parts.scheme],
        path=parts.path.rstrip("/") + SEEDING_PATH,
        query="",
        fragment="",
    ).geturl()
    connector = aiohttp.TCPConnector(resolver=_Only(address), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, skip_auto_headers=("User-Agent",)) as session,
        session.get(page, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"it answers {answer.status}")
        said = bytearray()
        while len(said) <= SEEDING_BYTES_MAX and (
            data := await answer.content.read(SEEDING_BYTES_MAX + 1 - len(said))
        ):
            said += data
    if len(said) > SEEDING_BYTES_MAX:
        raise ValueError(f"it says more than {SEEDING_BYTES_MAX} bytes")
    return SeedingPlace.decode(bytes(said)).port


class _Only(AbstractResolver):
    """Every name is at one address, which was looked at before."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver`."""
        version = ip_address(self._address.partition("%")[0]).version
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=port,
                family=socket.AF_INET6 if version == 6 else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def _a_few_at_a_time(work: Sequence[Awaitable[None]]) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(task: Awaitable[None]) -> None:
        async with room:
            await task

    await asyncio.gather(*(one(task) for task in work))
