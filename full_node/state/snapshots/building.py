"""Builds the tree over leaves that come in ascending order, holding one page a level and nothing else.

What it gives is what `StateTree.put` would have given for the same pairs in one version, page for page.
"""

from __future__ import annotations

from collections.abc import Callable

from full_node.state.page import SLOTS, Heap, Leaf, PageRef, Slot, nibbles_of, rehash


class PageBuilder:
    """Takes leaves, hands out each page when no later leaf can lie below it."""

    def __init__(self, version: int, emit: Callable[[bytes, Heap], None]) -> None:
        """`emit` gets (path, one nibble a byte; the finished page)."""
        self._version = version
        self._emit = emit
        self._open: list[Heap] = []  # the unfinished pages on the way to `_last`, from the root down
        self._last: tuple[bytes, Leaf] | None = None
        self._shared = 0  # nibbles that `_last` has in common with the leaf before it

    def add(self, leaf: Leaf) -> None:
        """The next leaf. Raises ValueError where its position is not above the one before."""
        nibbles = nibbles_of(leaf.position)
        if self._last is not None:
            before = self._last[0]
            if nibbles <= before:
                raise ValueError("leaves come in ascending order of their positions, each once")
            shared = _common_prefix(before, nibbles)
            self._place_last(max(self._shared, shared))
            self._close_below(shared)
            self._shared = shared
        self._last = nibbles, leaf

    def finish(self) -> Slot:
        """The root slot over all leaves; hands out the pages that are left."""
        if self._last is None:
            return None
        if not self._open:
            return self._last[1]
        self._place_last(self._shared)
        self._close_below(0)
        return self._finished(self._open.pop(), b"")

    def _place_last(self, depth: int) -> None:
        assert self._last is not None, "no leaf was added yet"
        nibbles, leaf = self._last
        while len(self._open) <= depth:
            self._open.append([None] * (2 * SLOTS))
        self._open[depth][SLOTS + nibbles[depth]] = leaf

    def _close_below(self, depth: int) -> None:
        """Finishes the open pages deeper than `depth`: the next leaf leaves the way there."""
        assert self._last is not None, "no leaf was added yet"
        nibbles = self._last[0]
        while len(self._open) > depth + 1:
            heap = self._open.pop()
            above = len(self._open) - 1
            self._open[above][SLOTS + nibbles[above]] = self._finished(heap, nibbles[: above + 1])

    def _finished(self, heap: Heap, path: bytes) -> PageRef:
        rehash(heap, [place for place in range(SLOTS, 2 * SLOTS) if heap[place] is not None])
        self._emit(path, heap)
        top = heap[1]
        # A page is opened only where two leaves meet, so its top is never a lone leaf.
        assert isinstance(top, bytes)
        return PageRef(top, self._version)


def _common_prefix(first: bytes, second: bytes) -> int:
    return next(at for at, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
