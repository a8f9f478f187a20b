"""A bundle from a file, an address or an invitation: bounded in size, time and hops, and recognised if it is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import aiohttp

from dllm_chat.network.addresses import is_local, is_loopback_host
from dllm_chat.network.relaying import fetch_through_relay
from dllm_protocol.errors import NetworkUnreachable, NotFound, TimedOut, UsageRefused, VerificationFailed
from dllm_protocol.invitation import BadInvitation, looks_like_code, read_code, read_hash, require_invited
from dllm_protocol.relay_invitation import looks_like_relay_code, read_relay_code
from light_node.relay.urls import relay_url

BUNDLE_BYTES_MAX = 4 << 20
TIMEOUT_S = 15.0
REDIRECTS_MAX = 3
_REDIRECT = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Offered:
    """A bundle as somebody offers it."""

    raw: bytes
    origin: str
    """Where it came from, for messages."""
    is_named: bool
    """Whether an invitation named exactly these bytes."""


async def fetch_bundle(target: str, *, relay: str = "", plain_relay: bool = False) -> Offered:
    """Get the bundle that a person named: a file, an https address (perhaps with #HASH), or an invitation's code.

    Args:
        relay: address of the relay at which a relay invitation is answered; empty where none is known.
        plain_relay: take an unprotected connection to it.

    Raises:
        NotFound, NetworkUnreachable, TimedOut, UsageRefused, BadInvitation, InvitationRefused, VerificationFailed
    """
    if target.startswith(("http://", "https://")):
        return await _from_address(target)
    if looks_like_code(target):
        return await _from_invitation(target)
    if _is_relay_code(target):
        return await _from_relay(target, relay, plain_relay)
    return _from_file(Path(target))


def _is_relay_code(target: str) -> bool:
    """A code, unless a file goes by these very digits: they are few enough to be a word."""
    return looks_like_relay_code(target) and not Path(target).is_file()


def _from_file(file: Path) -> Offered:
    try:
        with file.open("rb") as stream:
            raw = stream.read(BUNDLE_BYTES_MAX + 1)
    except OSError as error:
        raise NotFound(
            f"cannot read {file}: {error.strerror}",
            hint="name a bundle's file or https address, or a code from: dllm network invite",
        ) from error
    return Offered(_bounded(raw, str(file)), str(file), is_named=False)


async def _from_address(target: str) -> Offered:
    url, fragment = urldefrag(target)
    expected = read_hash(fragment) if fragment else None
    if expected is None:
        _require_protected(url)
    raw = await _download(url, REDIRECTS_MAX, protected=expected is None)
    if expected is not None:
        require_invited(raw, expected, url)
    return Offered(raw, url, is_named=expected is not None)


async def _from_invitation(code: str) -> Offered:
    invitation = read_code(code)
    address = invitation.address
    if not is_local(address) or not invitation.port:
        raise BadInvitation(
            f"the invitation leads to {address}:{invitation.port}, which is not in a local network",
            hint="people elsewhere are invited with an https address",
        )
    raw = await _download(invitation.url, 0, protected=False)
    require_invited(raw, invitation.bundle_hash, f"{address}:{invitation.port}")
    return Offered(raw, f"{address}:{invitation.port}", is_named=True)


async def _from_relay(code: str, relay: str, plain_relay: bool) -> Offered:
    invitation = read_relay_code(code)
    if not relay:
        raise UsageRefused(
            "the code is of people who meet at a relay, and no relay is named",
            hint='add --relay URL as your friend was told, or write relay = "wss://…" into config.toml',
        )
    url = relay_url(relay, plain_allowed=plain_relay)
    raw = await fetch_through_relay(url, invitation, BUNDLE_BYTES_MAX)
    return Offered(raw, f"the relay {url.name}", is_named=True)


async def _download(url: str, hops_left: int, *, protected: bool) -> bytes:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        # Not through a proxy from the environment: it would learn whom one joins.
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as http:
            while True:
                async with http.get(url, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECT:
                        return await _body(answer, url)
                    if not hops_left:
                        raise VerificationFailed(
                            f"{url} leads on and on: more than {REDIRECTS_MAX} redirects"
                        )
                    url = urljoin(url, answer.headers.get("Location", ""))
                    if protected:
                        _require_protected(url)
                hops_left -= 1
    except TimeoutError as error:
        raise TimedOut(f"{url} did not give a bundle within {TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise NetworkUnreachable(f"cannot fetch {url}: {error or type(error).__name__}") from error


async def _body(answer: aiohttp.ClientResponse, url: str) -> bytes:
    if answer.status != 200:
        raise NotFound(f"{url} answers {answer.status} {answer.reason or ''}".rstrip())
    raw = bytearray()
    async for piece in answer.content.iter_chunked(1 << 16):
        raw += piece
        if len(raw) > BUNDLE_BYTES_MAX:
            break
    return _bounded(bytes(raw), url)


def _bounded(raw: bytes, origin: str) -> bytes:
    if len(raw) > BUNDLE_BYTES_MAX:
        raise VerificationFailed(f"{origin} has more than {BUNDLE_BYTES_MAX} bytes: it is no bundle")
    return raw


def _require_protected(url: str) -> None:
    """Nobody on the way may choose which bundle a person is shown: https, or this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise UsageRefused(f"{url[:200]!r} is no address") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_host(host)):
        raise UsageRefused(
            f"{url[:200]} is not protected on the way",
            hint="use https, or add #HASH, the digits that `dllm network bundle` shows for it",
        )
