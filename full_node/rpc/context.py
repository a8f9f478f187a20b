"""What the methods work on, and what several of them need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dllm_protocol.block import Block
from dllm_protocol.commit import BlockID, Commit
from dllm_protocol.exposition import LabelledCounter
from dllm_protocol.header import Header
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Shape
from full_node.consensus.engine import Engine
from full_node.state.blocks import BlockMeta

JsonObject = dict[str, Any]
PER_PAGE_DEFAULT = 30
PER_PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """How the node calls itself in `status`."""

    moniker: str
    version: str


@dataclass
class RpcContext:
    """One node behind its RPC.

    Attributes:
        engine: blocks, state and mempool.
        identity: name and version.
        address: where the RPC listens, `host:port`; empty before it does.
        requests: calls by method and outcome, for the metrics.
    """

    engine: Engine
    identity: NodeIdentity
    address: str = ""
    requests: LabelledCounter = field(default_factory=lambda: LabelledCounter("method", "outcome"))

    @property
    def latest_height(self) -> int:
        """Height of the newest block."""
        return self.engine.store.blocks.latest_height()

    def height_or_latest(self, height: int | None, *, ahead: int = 0) -> int:
        """A height that blocks are kept for; None asks for the latest. Raises RpcError with CometBFT's
        words.
        """
        latest = self.latest_height
        if height is None or height == 0:
            return latest + ahead
        if height < 0:
            raise internal_error(f"height must be greater than 0, but got {height}")
        if height > latest + ahead:
            raise internal_error(
                f"height {height} must be less than or equal to the current blockchain height {latest + ahead}"
            )
        lowest = self.engine.store.blocks.earliest_height()
        if height < lowest:
            raise internal_error(f"height {height} is not available, lowest height is {lowest}")
        return height

    def meta(self, height: int) -> BlockMeta:
        """A kept block's row. Raises RpcError."""
        found = self.engine.store.blocks.meta(height)
        if found is None:
            raise internal_error(f"height {height} is not available")
        return found

    def header(self, height: int) -> Header:
        """A kept block's header. Raises RpcError."""
        return Header.decode(self.meta(height).header)

    def block(self, height: int) -> Block:
        """A kept block. Raises RpcError."""
        encoded = self.engine.store.blocks.block(height)
        if encoded is None:
            raise internal_error(f"height {height} is not available")
        return Block.decode(encoded)


def commit_of(meta: BlockMeta) -> Commit:
    """The commit over a block as this node saw it."""
    return Commit.decode(meta.seen_commit)


def block_id_of(meta: BlockMeta) -> BlockID:
    """A block's id."""
    return BlockID.decode(meta.block_id)


def page_of(page: int | None, per_page: int | None, total: int) -> tuple[int, int]:
    """(first, behind the last) of a page that CometBFT's paging gives. Raises RpcError."""
    size = PER_PAGE_DEFAULT if per_page is None or per_page < 1 else min(per_page, PER_PAGE_MAX)
    pages = max(1, -(-total // size))
    number = 1 if page is None else page
    if not 1 <= number <= pages:
        raise internal_error(f"page should be within [1, {pages}] range, given {number}")
    first = (number - 1) * size
    return first, min(first + size, total)


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its parameters in order, and what answers it."""

    shape: Shape
    answer: Callable[..., Awaitable[JsonObject]]
    """Called with the context and the arguments by name; raises RpcError or a DllmError."""


Methods = Mapping[str, Method]
