"""How hidden states travel: f32 as they are, bf16 to the nearest, and nothing that is no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.messages import FORM_BF16, FORM_F32
from local_worker.errors import RowsUnusable
from local_worker.hidden_form import pack, unpack

NUMBERS = st.floats(-(2.0**40), 2.0**40, width=32)


@given(st.lists(NUMBERS, min_size=4, max_size=4))
def test_f32_comes_out_as_it_went_in(numbers: list[float]) -> None:
    rows = np.array([numbers], np.float32)
    assert unpack(pack(rows, FORM_F32), 1, 4, FORM_F32).tobytes() == rows.tobytes()


@given(st.lists(NUMBERS, min_size=4, max_size=4))
def test_bf16_is_off_by_half_a_step_at_most_and_stays_what_it_is(numbers: list[float]) -> None:
    rows = np.array([numbers], np.float32)
    once = unpack(pack(rows, FORM_BF16), 1, 4, FORM_BF16)
    # Eight bits of precision; below the normal numbers the step is the smallest normal number's.
    assert (np.abs(once - rows) <= np.maximum(np.abs(rows), 2.0**-126) * 2.0**-8).all()
    assert unpack(pack(once, FORM_BF16), 1, 4, FORM_BF16).tobytes() == once.tobytes()


def test_bf16_rounds_ties_to_even() -> None:
    bits = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0xBF808000]], np.uint32)
    packed = np.frombuffer(pack(bits.view(np.float32), FORM_BF16), "<u2")
    assert packed.tolist() == [0x3F80, 0x3F82, 0x3F81, 0xBF80]


def test_a_residual_beyond_half_floats_survives() -> None:
    rows = np.array([[7e5, -7e5]], np.float32)  # seen in a trained model; half floats end at 65,504
    assert np.allclose(unpack(pack(rows, FORM_BF16), 1, 2, FORM_BF16), rows, rtol=2.0**-8)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("form", [FORM_F32, FORM_BF16])
def test_what_is_no_usable_number_is_refused(number: float, form: int) -> None:
    with pytest.raises(RowsUnusable, match="not all numbers"):
        unpack(pack(np.array([[1.0, number]], np.float32), form), 1, 2, form)


@pytest.mark.parametrize(
    ("size", "count", "width", "form"),
    [(7, 1, 2, FORM_F32), (8, 2, 2, FORM_F32), (8, 1, 2, FORM_BF16), (8, 1, 2, 0)],
)
def test_another_shape_than_announced_is_refused(size: int, count: int, width: int, form: int) -> None:
    with pytest.raises(RowsUnusable, match=f"in {size} bytes"):
        unpack(bytes(size), count, width, form)
