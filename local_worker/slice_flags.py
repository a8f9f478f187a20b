"""What was typed after ``dllm-worker start``, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dllm_protocol.endpoints import ADDRESS_BYTES, BadEndpoint, write_relay_endpoint
from dllm_protocol.errors import UsageRefused
from dllm_protocol.pricing import RowPrices
from light_node.relay.errors import BadRelayAddress
from light_node.relay.urls import RelayUrl, relay_url
from local_worker.layer_range import AUTO_LAYERS, check_layer_range
from local_worker.registration import OfferTerms
from local_worker.relays import RELAYS_MAX
from local_worker.slice_service import MAX_SLICES, SliceOptions

ANY_PORT = "127.0.0.1:0"
ENDPOINTS_MAX = 8
"""As a provider's record bounds them."""
T = TypeVar("T")
MAX_GPU_LAYERS = 1000


def slices_of(
    layers: Sequence[str],
    listen: Sequence[str],
    announce: Sequence[str],
    prices: Sequence[str],
    capacity_sessions: int,
    *,
    relays: int = 0,
    most_layers: int | None = None,
) -> tuple[SliceOptions, ...]:
    """One slice for each range of layers; one of the whole model where none was named.

    Args:
        listen: ``host:port``, one for all or one for each; one port for all is the first slice's, the next ones follow.
            None: a free port on loopback, and no port at all for slices that are reached at relays only.
        announce: endpoints for the chain; with several slices one for each.
        prices: one ask for all or one for each.
        relays: how many relays they are reached through.
        most_layers: with `AUTO_LAYERS`, which stands alone.

    Raises:
        UsageRefused: naming the flag, what it has and what it must have.
    """
    if AUTO_LAYERS in layers and len(layers) > 1:
        raise UsageRefused("--layers auto stands alone: the network gives a worker one slice")
    for text in layers:
        if text != AUTO_LAYERS:
            check_layer_range(text)
    if most_layers is not None and AUTO_LAYERS not in layers:
        raise UsageRefused("--most-layers is for --layers auto", hint="name the layers, or leave it away")
    if len(layers) > MAX_SLICES:
        raise UsageRefused(
            f"--layers was given {len(layers)} times, a worker has at most {MAX_SLICES} slices"
        )
    count = max(1, len(layers))
    asked: list[RowPrices | None] = [parse_prices(text) for text in prices]
    everybody: list[RowPrices | None] = [None]
    asks = _for_each("--prices", asked or everybody, count)
    doors: list[tuple[str | None, int]] = [(None, 0)] * count
    if listen or announce or not relays:
        doors = [*_doors([host_and_port(text) for text in listen or (ANY_PORT,)], count)]
    if relays + len(announce) > ENDPOINTS_MAX and count == 1:
        raise UsageRefused(f"{len(announce)} endpoints and {relays} relays, a provider has {ENDPOINTS_MAX}")
    if count == 1:
        announced: list[tuple[str, ...]] = [tuple(announce)]
    elif announce:
        if len(announce) != count:
            raise UsageRefused(f"--announce was given {len(announce)} times for {count} slices: one for each")
        announced = [(one,) for one in announce]
    else:
        announced = [()] * count
    return tuple(
        SliceOptions(text, host, port, endpoints, OfferTerms(ask, capacity_sessions), most_layers)
        for text, (host, port), endpoints, ask in zip(layers or [""], doors, announced, asks, strict=True)
    )


def relays_of(texts: Sequence[str], *, plain_allowed: bool) -> tuple[RelayUrl, ...]:
    """Relays as they were typed.

    Raises:
        BadRelayAddress: one is none, is not protected on the way, or cannot stand in a provider's record.
        UsageRefused: too many.
    """
    found = tuple(dict.fromkeys(relay_url(one, plain_allowed=plain_allowed) for one in texts))
    if len(found) > RELAYS_MAX:
        raise UsageRefused(f"{len(found)} relays, at most {RELAYS_MAX}")
    for relay in found:
        try:
            write_relay_endpoint(relay.url, relay.name, bytes(ADDRESS_BYTES))
        except BadEndpoint as error:
            raise BadRelayAddress(
                f"{relay.url} cannot be announced: {error.message}",
                hint="it must be short, and its path of letters, digits and -._~ without a / at the end",
            ) from error
    return found


def host_and_port(text: str) -> tuple[str, int]:
    """Raises UsageRefused where a text is not ``host:port``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageRefused(f"{text!r} is not host:port", hint="for example 127.0.0.1:0")
    return host.strip("[]"), int(port)


def parse_prices(text: str) -> RowPrices:
    """Raises UsageRefused where a text is not four prices."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise UsageRefused(
            f"{text!r} is not four prices", hint="prompt,kept,drafted,replayed: 200,2000,2000,200"
        )
    return RowPrices(*(int(part) for part in parts))


def gpu_layers_of(text: str) -> int | None:
    """``auto`` is None, ``none`` is 0; raises UsageRefused where a text is neither nor a number."""
    if text == "auto":
        return None
    if text == "none":
        return 0
    if not text.isdecimal() or not 0 <= int(text) <= MAX_GPU_LAYERS:
        raise UsageRefused(f"--gpu-layers {text!r} is not auto, none or a number up to {MAX_GPU_LAYERS}")
    return int(text)


def _doors(given: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    if len(given) != 1:
        return _for_each("--listen", given, count)
    ((host, port),) = given
    if port and port + count - 1 > 65535:
        raise UsageRefused(f"--listen is port {port}; {count} slices need that many ports from it on")
    return [(host, port + number if port else 0) for number in range(count)]


def _for_each(flag: str, given: list[T], count: int) -> list[T]:
    if len(given) == 1:
        return given * count
    if len(given) != count:
        raise UsageRefused(
            f"{flag} was given {len(given)} times for {count} slices: give one for all, or one for each"
        )
    return given
