"""Texts to be tokenised, in portions that one request takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dllm_protocol.errors import UsageRefused
from dllm_protocol.messages import MAX_TOKENIZE_BYTES, MAX_TOKENIZE_TEXTS


def text_batches(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Texts in portions that one request takes.

    Raises:
        UsageRefused: one text alone is too long.
    """
    batch: list[bytes] = []
    size = 0
    for text in texts:
        if len(text) > MAX_TOKENIZE_BYTES:
            raise UsageRefused(
                f"a message has {len(text)} bytes, at most {MAX_TOKENIZE_BYTES} are tokenised",
                hint="shorten it",
            )
        if batch and (len(batch) == MAX_TOKENIZE_TEXTS or size + len(text) > MAX_TOKENIZE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch
