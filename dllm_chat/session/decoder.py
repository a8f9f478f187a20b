"""What an answer is decoded by, however many machines stand behind it: one leg, or a line of stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dllm_protocol.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class RowLogits:
    """The largest logits behind one row, largest first."""

    position: int
    ids: list[int]
    logits: list[float]


class Decoder(Protocol):
    """Rows in, logits out. Failures of providers come out as `dllm_chat.session.leg.LegFailed`."""

    held: list[int]
    """Token ids whose rows are held for us, as far as we know; drafted ones included."""

    @property
    def speaker(self) -> bytes:
        """Whose logits are heard: the provider, or that of the last stage."""
        ...

    @property
    def round_trip_s(self) -> float | None:
        """Time of a message's way there and back with no decoding in it; None until it was measured."""
        ...

    @property
    def context_rows(self) -> int:
        """Longest sequence that is held for this session."""
        ...

    @property
    def top_k(self) -> int:
        """Most logits of a row."""
        ...

    @property
    def is_cancelling(self) -> bool:
        """Whether somebody may still be at work on something that was cancelled."""
        ...

    async def tokenize(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Token ids of texts, unchecked."""
        ...

    async def vocabulary(self, expected_hash: bytes) -> Vocabulary:
        """The model's vocabulary, checked against the manifest. Raises VocabularyRefused."""
        ...

    async def decode(self, ids: Sequence[int], *, kind: int, top_k: int) -> RowLogits:
        """Bring what is held to exactly ``ids``; return the logits behind the last row."""
        ...

    async def decode_next(self, token: int, top_k: int, *, position: int | None = None) -> RowLogits:
        """Decode one kept token; return the logits behind it.

        Args:
            position: the token's, where rows that were drafted in vain stand behind it.
        """
        ...

    async def replay(self, ids: Sequence[int], lost: Exception, top_k: int) -> RowLogits:
        """Have all rows of ``ids`` decoded anew, because some were lost; the logits behind the last."""
        ...

    async def ping(self) -> None:
        """Measure `round_trip_s`."""
        ...

    async def send_window(self, position: int, ids: Sequence[int], top_k: int) -> int:
        """Ask for a kept row and drafted ones behind it, without waiting; returns the request's number.

        Raises:
            DepositUsedUp: nothing was asked for.
        """
        ...

    async def row_of(self, request: int) -> RowLogits:
        """The logits of a window's next row. Windows are answered in the order in which they were sent."""
        ...

    async def cancel(self, requests: Sequence[int]) -> None:
        """Stop windows that nobody wants any more; the last first, so that none begins in the place of another."""
        ...

    def pass_over(self, requests: Iterable[int]) -> None:
        """Whatever else comes for these requests is of no interest."""
        ...

    async def seal_turn(self) -> None:
        """Have the turn's last rows acknowledged."""
        ...

    async def close(self, reason: str) -> None:
        """Say goodbye and hang up."""
        ...


def common_rows(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Length of the common beginning of two lists of token ids."""
    for index, (one, other) in enumerate(zip(held, wanted, strict=False)):
        if one != other:
            return index
    return min(len(held), len(wanted))
