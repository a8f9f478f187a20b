"""What the proxy's methods work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dllm_protocol.exposition import LabelledCounter
from dllm_protocol.genesis import Genesis
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Shape
from light_node.proxy.proving import Proving
from light_node.queries import ProvedReads
from light_node.trust_store import TrustStore

JsonObject = dict[str, Any]
PER_PAGE_DEFAULT = 30
PER_PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """One light node behind its RPC."""

    proving: Proving
    reads: ProvedReads
    genesis: Genesis
    """Its hash ends the chain id, so it needs no other proof."""
    store: TrustStore
    """What the light node believes."""
    version: str
    """Of this software, shown in `status`."""
    requests: LabelledCounter = field(default_factory=lambda: LabelledCounter("method", "outcome"))
    """Calls, for the metrics."""
    refusals: LabelledCounter = field(default_factory=lambda: LabelledCounter("code"))
    """What could not be proved or was not believed, by error code, for the metrics."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its parameters in order, and what answers it."""

    shape: Shape
    answer: Callable[..., Awaitable[JsonObject]]
    """Called with the context and the arguments by name; raises RpcError or a DllmError."""


Methods = Mapping[str, Method]


def asked_height(height: int | None) -> int | None:
    """A height as given; nothing and 0 ask for the newest. Raises RpcError."""
    if height is not None and height < 0:
        raise internal_error(f"height must be greater than 0, but got {height}")
    return height or None


def page_of(page: int | None, per_page: int | None, total: int) -> tuple[int, int]:
    """(first, behind the last) of a page that CometBFT's paging gives. Raises RpcError."""
    size = PER_PAGE_DEFAULT if per_page is None or per_page < 1 else min(per_page, PER_PAGE_MAX)
    pages = max(1, -(-total // size))
    number = 1 if page is None else page
    if not 1 <= number <= pages:
        raise internal_error(f"page should be within [1, {pages}] range, given {number}")
    first = (number - 1) * size
    return first, min(first + size, total)
