"""How many rows of a long job go into one batch: as many as keep the machine busy, in batches that round alike.

llama.cpp computes attention in tiles where a sequence has `TILE_ROWS` rows or more in a batch, and row by row where it
has fewer (GGML_FA_TILE_Q), which rounds otherwise: logits of quantised models differ by a tenth between the two. Within
each they are the same to the bit, however rows are cut. So no slice of a long job is smaller than a tile: what a prompt
gives depends neither on who else is served meanwhile, nor on who computes it once more.
"""

from __future__ import annotations

from typing import Final

TILE_ROWS: Final = 64
GPU_SLICE_ROWS: Final = 256
CPU_SLICE_ROWS: Final = 128
"""As many keep a processor as busy as more do, and the next stage begins sooner; graphics cards want more."""
SHARED_SLICE_ROWS: Final = TILE_ROWS
"""While others decode: their next token waits for at most one such slice and what would be left of a tile."""


def batch_rows_for(slice_rows: int) -> int:
    """Rows that a batch must hold for slices of so many."""
    return slice_rows + TILE_ROWS


def slice_of(left: int, batch_rows: int, *, is_shared: bool) -> int:
    """How many of the ``left`` rows of a job are next, in batches that hold ``batch_rows``."""
    rows = max(batch_rows - TILE_ROWS, min(batch_rows, TILE_ROWS))
    if is_shared:
        rows = min(rows, SHARED_SLICE_ROWS)
    return left if left < rows + TILE_ROWS and left <= batch_rows else min(left, rows)
