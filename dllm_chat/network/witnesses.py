"""Witnesses of a person's own: nodes that the bundle's publisher did not choose.

A bundle names sources and witnesses, yet one publisher chose them all, and could have made all of them up. So at least
one node comes from elsewhere: typed by the person, or known to the package. Only a test network that runs on this very
machine needs none: there is nobody else to ask, and nothing to lose.
"""

from __future__ import annotations

from collections.abc import Sequence

from dllm_chat.network.addresses import place_of, websocket_url
from dllm_chat.network.errors import WitnessNeeded
from dllm_chat.paths import Paths, write_private
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.errors import UsageRefused

FILE = "witnesses"
WITNESSES_MAX = 32
_FILE_BYTES_MAX = 32 * 1024


def own_witnesses(paths: Paths, chain_id: str) -> tuple[str, ...]:
    """The person's own witnesses of a chain.

    Raises:
        UsageRefused: the file was changed into something else.
    """
    try:
        with (paths.networks / chain_id / FILE).open("rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageRefused(f"cannot read the witnesses of {chain_id}: {error.strerror}") from error
    lines = raw.decode(errors="replace").split() if len(raw) <= _FILE_BYTES_MAX else []
    return distinct([websocket_url(line) for line in lines])


def keep_witnesses(paths: Paths, chain_id: str, witnesses: Sequence[str]) -> None:
    """Remember the person's own witnesses of a chain."""
    text = "".join(f"{one}\n" for one in witnesses)
    write_private(paths.networks / chain_id / FILE, text.encode())


def distinct(urls: Sequence[str]) -> tuple[str, ...]:
    """Addresses of different nodes, in order, at most 32."""
    by_place = {place_of(url): url for url in reversed(urls)}
    kept = [url for url in urls if by_place.get(place_of(url)) == url]
    return tuple(dict.fromkeys(kept))[:WITNESSES_MAX]


def outside(bundle: NetworkBundle, witnesses: Sequence[str]) -> tuple[str, ...]:
    """Those that the bundle does not name itself."""
    named = {place_of(url) for url in (*bundle.sources, *bundle.witnesses)}
    return tuple(url for url in witnesses if place_of(url) not in named)


def is_on_this_machine(bundle: NetworkBundle) -> bool:
    """Whether all nodes that a bundle names are at loopback addresses."""
    return all(place_of(url)[0] == "localhost" for url in (*bundle.sources, *bundle.witnesses))


def require_outside_witness(bundle: NetworkBundle, witnesses: Sequence[str]) -> None:
    """Refuse a network whose nodes were all chosen by its publisher. Raises WitnessNeeded."""
    if outside(bundle, witnesses) or (bundle.is_test and is_on_this_machine(bundle)):
        return
    raise WitnessNeeded(
        f"every node of {bundle.chain_id} was chosen by the bundle's publisher",
        hint="name one that was not: --witness ws://HOST:PORT/websocket",
    )
