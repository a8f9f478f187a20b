"""Where a provider answers, as its record says it [format]: by itself, or under an address at a relay.

    ws://HOST:PORT…  wss://HOST…                          a websocket of the provider's own
    relay+ws://HOST:PORT[/PATH]/ADDRESS                   an address at a relay, whose websocket is ws://HOST:PORT[/PATH]
    relay+wss://HOST:PORT[/PATH]/ADDRESS                  the same behind TLS

A relayed endpoint has one spelling: the relay's name as `relay_name` writes it, port included, then perhaps a path,
then the address as 64 hexadecimal digits. See docs/protocol/relay.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.relay import relay_name

ENDPOINT_CHARACTERS_MAX = 200
"""As a provider's record bounds it."""
DIRECT_SCHEMES = ("ws://", "wss://")
RELAY_PREFIX = "relay+"
ADDRESS_BYTES = 32
_RELAYED = re.compile(
    r"relay\+(?P<scheme>wss?)://"
    r"(?P<host>[a-z0-9_](?:[a-z0-9_.-]{0,120}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\]):(?P<port>[1-9][0-9]{0,4})"
    r"(?P<path>(?:/[A-Za-z0-9_~.-]+)*)/(?P<address>[0-9a-f]{64})",
    re.ASCII,
)
_SHOWN = 60


class BadEndpoint(MalformedBytes):
    """No endpoint that this version can dial."""

    code = "E_ENDPOINT"


@dataclass(frozen=True, slots=True)
class DirectEndpoint:
    """A websocket of the provider's own."""

    url: str


@dataclass(frozen=True, slots=True)
class RelayEndpoint:
    """An address at a relay."""

    url: str
    """The relay's websocket: ``ws://HOST:PORT[/PATH]`` or ``wss://…``."""
    relay: str
    """The relay's name, ``host:port``."""
    address: bytes
    """Where the provider listens there (32 bytes): `relay.key_address` of a key that it holds."""


Endpoint = DirectEndpoint | RelayEndpoint


def read_endpoint(text: str) -> Endpoint:
    """What an endpoint of a provider's record says; a websocket's own address is left to whoever dials it.

    Raises:
        BadEndpoint: of no kind that is known here, or a relayed one in another than its one spelling.
    """
    if len(text) > ENDPOINT_CHARACTERS_MAX:
        raise BadEndpoint(f"an endpoint has {len(text)} characters, at most {ENDPOINT_CHARACTERS_MAX}")
    if text.startswith(DIRECT_SCHEMES):
        return DirectEndpoint(text)
    if not text.startswith(RELAY_PREFIX):
        raise BadEndpoint("neither ws:// nor wss://, with or without relay+ before it")
    found = _RELAYED.fullmatch(text)
    if found is None or not _is_plain(found["host"], int(found["port"]), found["path"]):
        raise BadEndpoint(f"not relay+wss://HOST:PORT[/PATH]/ADDRESS: {text[:_SHOWN]!r}")
    relay = f"{found['host']}:{found['port']}"
    return RelayEndpoint(
        f"{found['scheme']}://{relay}{found['path']}", relay, bytes.fromhex(found["address"])
    )


def write_relay_endpoint(url: str, relay: str, address: bytes) -> str:
    """The endpoint of an address at a relay.

    Args:
        url: the relay's websocket, ``ws://…`` or ``wss://…``; its port may be left out.
        relay: the relay's name, ``host:port``.
        address: 32 bytes.

    Raises:
        BadEndpoint: it has more characters than a record takes, or a path that none may have.
    """
    scheme, _, rest = url.partition("://")
    _, slash, path = rest.partition("/")
    text = f"{RELAY_PREFIX}{scheme}://{relay}{slash}{path}/{address.hex()}"
    read_endpoint(text)
    return text


def direct_first(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    """The same endpoints: those without a relay first, else in their order."""
    return tuple(sorted(endpoints, key=lambda one: one.startswith(RELAY_PREFIX)))


def _is_plain(host: str, port: int, path: str) -> bool:
    """Whether nothing else spells the same: neither another form of the host, nor a path that leads upwards."""
    return (
        port <= 65_535
        and relay_name(host, port) == f"{host}:{port}"
        and not {".", ".."} & set(path.split("/"))
    )
