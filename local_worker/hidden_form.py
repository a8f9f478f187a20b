"""How hidden states travel: f32 as they are, or bf16, f32's upper half, rounded to nearest, ties to even.

bf16 has f32's range, so no state of a trained model overflows in it; fp16 ends at 65,504, which some exceed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dllm_protocol.messages import FORM_BF16, FORM_F32
from local_worker.engine.hidden import are_usable
from local_worker.engine.messages import Hidden
from local_worker.errors import RowsUnusable

BYTES: Final = {FORM_F32: 4, FORM_BF16: 2}
"""Bytes of a number, by form."""
NAMES: Final = {FORM_F32: "f32", FORM_BF16: "bf16"}


def pack(rows: Hidden, form: int) -> bytes:
    """Rows as they travel, little-endian. Numbers within `LARGEST_HIDDEN` stay numbers."""
    if form == FORM_F32:
        return rows.astype("<f4", copy=False).tobytes()
    bits = np.ascontiguousarray(rows, dtype=np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return rounded.astype("<u2").tobytes()


def unpack(data: bytes, count: int, width: int, form: int) -> Hidden:
    """Rows [count, width] from `pack`.

    Raises:
        RowsUnusable: another size, or numbers that are none or beyond all bounds.
    """
    size = BYTES.get(form)
    if size is None or len(data) != count * width * size:
        raise RowsUnusable(
            f"{count} rows of {width} numbers in form {form} came in {len(data)} bytes",
            hint="the stage before serves another model",
        )
    rows: npt.NDArray[np.float32]
    if form == FORM_F32:
        rows = np.frombuffer(data, np.dtype("<f4")).reshape(count, width)
    else:
        wide = np.frombuffer(data, np.dtype("<u2")).astype(np.uint32) << 16
        rows = wide.view(np.float32).reshape(count, width)
    if not are_usable(rows):
        raise RowsUnusable("hidden states came that are not all numbers of a usable size")
    return rows
