"""A relay's address as people type it: protected on the way, or close by, or plain because somebody said so."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from dllm_protocol.relay import relay_name
from light_node.relay.errors import BadRelayAddress

URL_CHARACTERS_MAX = 300
_PORTS = {"ws": 80, "wss": 443}
_SPELT = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class RelayUrl:
    """Where a relay is."""

    url: str
    name: str
    """``host:port``: what keys sign, and what a code hints at."""


def relay_url(text: str, *, plain_allowed: bool = False) -> RelayUrl:
    """A relay's address from what a person typed: ``wss://HOST[:PORT][/PATH]``, or ``HOST[:PORT]`` for the same.

    Args:
        plain_allowed: take ``ws://`` to any host; else only to this machine and private networks.

    Raises:
        BadRelayAddress: it is no such address, or not protected on the way.
    """
    typed = text if "://" in text else f"wss://{text}"
    try:
        parts = urlsplit(typed)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadRelayAddress(f"{text[:200]!r} is no address of a relay: {error}") from error
    scheme = _SPELT.get(parts.scheme)
    extra = parts.username is not None or parts.query or parts.fragment
    printable = typed.isascii() and typed.isprintable() and " " not in typed
    if scheme is None or not host or port == 0 or extra or not printable or len(typed) > URL_CHARACTERS_MAX:
        raise BadRelayAddress(
            f"{text[:200]!r} is no address of a relay", hint="for example wss://relay.example"
        )
    name = relay_name(host, port or _PORTS[scheme])
    if scheme == "ws" and not plain_allowed and not _is_close(host):
        raise BadRelayAddress(
            f"{text[:200]} is not protected on the way",
            hint="use wss://, or say --plain-relay: the relay and everybody on the way then see when who meets whom",
        )
    shown = relay_name(host, port) if port else relay_name(host, 0).removesuffix(":0")
    path = parts.path if parts.path != "/" else ""
    return RelayUrl(f"{scheme}://{shown}{path}", name)


def _is_close(host: str) -> bool:
    """This machine, or an address of a private network; a name could lead anywhere."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return True
    return not (address.is_global or address.is_multicast or address.is_unspecified or address.is_reserved)
