"""Top-k by groups against a plain sort, and the log-sum-exp against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_worker.engine.top_k import TopK


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 1 << 30), st.sampled_from([0.1, 1, 30, 1e4]))
def test_the_largest_are_those_of_a_stable_sort(size: int, k: int, seed: int, scale: float) -> None:
    # Rounded, so that there are ties.
    row = np.round(np.random.default_rng(seed).standard_normal(size) * scale, 1).astype(np.float32)
    output = TopK(size).read(row, 3, k)
    expected = np.argsort(-row, kind="stable")[:k]
    assert output.ids.tolist() == expected.tolist()
    assert output.logits.tolist() == row[expected].tolist()
    exact = row.astype(np.float64)
    assert output.logsumexp == pytest.approx(
        exact.max() + np.log(np.exp(exact - exact.max()).sum()), rel=1e-6, abs=1e-5
    )


@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_no_number_is_refused(size: int, poison: float) -> None:
    row = np.zeros(size, dtype=np.float32)
    row[size // 2] = poison
    with pytest.raises(ArithmeticError, match="position 8"):
        TopK(size).read(row, 8, 4)
    with pytest.raises(ArithmeticError, match="position 8"):
        TopK(size).read(np.full(size, -np.inf, dtype=np.float32), 8, 4)
