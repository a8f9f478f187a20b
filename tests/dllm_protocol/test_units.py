"""Amounts are exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.units import MAX_SUPPLY_UDLLM, BadAmount, format_dllm, parse_dllm


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1.5", 1_500_000), ("0.000001", 1), (".5", 500_000), (" 2 ", 2_000_000), ("007", 7_000_000)],
)
def test_plain_decimals_are_read(text: str, amount: int) -> None:
    assert parse_dllm(text) == amount


@given(st.integers(1, MAX_SUPPLY_UDLLM))
def test_an_amount_comes_back(amount: int) -> None:
    assert parse_dllm(format_dllm(amount)) == amount


@pytest.mark.parametrize("amount", [0, 1, 10, 999_999, 1_000_000, 1_500_000])
def test_text_has_no_needless_zeros(amount: int) -> None:
    text = format_dllm(amount)
    assert not ("." in text and text.endswith(("0", ".")))
    assert format_dllm(-amount) == (f"-{text}" if amount else "0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-1",
        "+1",
        "1e3",
        "1,5",
        "1.",
        "1_000",
        "٣",
        "0x1",
        "nan",
        "1.0000001",
        "0",
        "0.0",
        "9" * 25,
        str(MAX_SUPPLY_UDLLM),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadAmount):
        parse_dllm(text)
