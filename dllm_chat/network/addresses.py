"""Addresses of full nodes as people type them, and which of them are on this very machine."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from dllm_protocol.errors import UsageRefused

URL_CHARACTERS_MAX = 300
_WEBSOCKET = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss", "tcp": "ws"}


def websocket_url(text: str) -> str:
    """A node's websocket from what a person typed: ``ws://host:port/websocket``, ``http://host:port``, ``host:port``.

    Raises:
        UsageRefused: it is no address of a node.
    """
    typed = text if "://" in text else f"ws://{text}"
    try:
        parts = urlsplit(typed)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageRefused(f"{text[:200]!r} is no address of a node: {error}") from error
    scheme = _WEBSOCKET.get(parts.scheme)
    if scheme is None or not host or len(typed) > URL_CHARACTERS_MAX or parts.username is not None:
        raise UsageRefused(
            f"{text[:200]!r} is no address of a node", hint="for example ws://host:26657/websocket"
        )
    path = parts.path if parts.path not in ("", "/") else "/websocket"
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}{f':{port}' if port else ''}{path}"


def place_of(url: str) -> tuple[str, int]:
    """(host, port) of an address, to tell two nodes apart; all names of this machine are one.

    Raises:
        UsageRefused: it is no address of a node.
    """
    parts = urlsplit(websocket_url(url))
    host = (parts.hostname or "").rstrip(".").lower()
    default = 443 if parts.scheme == "wss" else 80
    return ("localhost" if is_loopback_host(host) else host), parts.port or default


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address is this very machine."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(address: IPv4Address) -> bool:
    """Whether an address is in a local network: an invitation leads nowhere else."""
    return not (address.is_global or address.is_multicast or address.is_unspecified or address.is_reserved)
