"""Where pieces may come from, and how much of this machine the exchange may use; checked before anything begins."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from dllm_protocol.errors import UsageRefused

PEERS_MAX: Final = 64
WEB_SEEDS_MAX: Final = 16
URL_CHARACTERS_MAX: Final = 1024
RATE_MIN: Final = 16 * 1024
RATE_MAX: Final = (1 << 31) - 1
_URL = re.compile(r"[!-~]+")
_RATE = re.compile(r"([0-9]{1,12})([kKmMgG]?)")
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}

Place = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an exchange may take.

    Attributes:
        upload_bytes_per_s, download_bytes_per_s: 0 is without limit. Peers on this machine and in its network count.
        connections: with peers, at one time.
        idle_s: how long a fetch waits while nothing comes.
    """

    upload_bytes_per_s: int = 0
    download_bytes_per_s: int = 0
    connections: int = 200
    idle_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Sources:
    """Peers that speak BitTorrent, by numeric address, and packages that lie behind HTTP."""

    peers: tuple[Place, ...] = ()
    web_seeds: tuple[str, ...] = ()
    """Addresses of packages' folders, each with a ``/`` at its end."""


def sources_from(peers: list[str], web_seeds: list[str]) -> Sources:
    """Sources as a person names them: ``host:port``, and addresses of packages.

    Raises:
        UsageRefused: there is none, too many, or one that makes no sense.
    """
    if not peers and not web_seeds:
        raise UsageRefused(
            "no source is named", hint="--peer host:port, or --web-seed https://host/NAME.package"
        )
    for what, given, most in (("peers", peers, PEERS_MAX), ("web seeds", web_seeds, WEB_SEEDS_MAX)):
        if len(given) > most:
            raise UsageRefused(f"{len(given)} {what} are named, at most {most}")
    places = [place for one in peers for place in resolved(*place_from(one))]
    return Sources(
        tuple(dict.fromkeys(places))[:PEERS_MAX], tuple(dict.fromkeys(map(web_seed_from, web_seeds)))
    )


def place_from(text: str, *, lowest_port: int = 1) -> Place:
    """``host:port``.

    Raises:
        UsageRefused: it is something else.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not lowest_port <= int(port) <= 65535:
        raise UsageRefused(f"{text[:80]!r} is not host:port", hint="for example 192.0.2.7:6881")
    if not re.fullmatch(r"[0-9A-Za-z.:_%-]{1,255}", host):
        raise UsageRefused(f"{text[:80]!r} names no host")
    return host, int(port)


def resolved(host: str, port: int) -> list[Place]:
    """The numeric addresses of a place.

    Raises:
        UsageRefused: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageRefused(f"nobody knows the host {host[:80]!r}: {error}") from error
    return list(dict.fromkeys((str(one[4][0]), port) for one in found))


def numeric_place(host: str, port: int) -> str:
    """A place as libtorrent reads it."""
    return (
        f"[{host}]:{port}" if ipaddress.ip_address(host.partition("%")[0]).version == 6 else f"{host}:{port}"
    )


def web_seed_from(text: str) -> str:
    """The address of a package's folder behind HTTP, with a ``/`` at its end.

    Raises:
        UsageRefused: another scheme, a password, a question in it, or signs that no address has.
    """
    if not _URL.fullmatch(text) or len(text) > URL_CHARACTERS_MAX:
        raise UsageRefused(f"{text[:80]!r} is no address: printable signs, {URL_CHARACTERS_MAX} at most")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageRefused(f"{text[:80]!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise UsageRefused(
            f"{text[:80]!r} is not the address of a web seed", hint="for example https://host/NAME.package"
        )
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise UsageRefused(
            f"the address of a web seed at {host[:80]} has a password, a question or a fragment in it",
            hint="name the folder alone",
        )
    return text.rstrip("/") + "/"


def rate_from(text: str) -> int:
    """Bytes a second: ``2M``, ``500k``, ``0`` for no limit.

    Raises:
        UsageRefused: it is something else, or so little that nobody could be served.
    """
    match = _RATE.fullmatch(text)
    rate = int(match[1]) * _UNITS[match[2].lower()] if match else -1
    if rate and not RATE_MIN <= rate <= RATE_MAX:
        raise UsageRefused(
            f"{text[:40]!r} is no rate: {RATE_MIN} to {RATE_MAX} bytes a second, or 0 for no limit",
            hint="for example 2M or 500k",
        )
    return rate
