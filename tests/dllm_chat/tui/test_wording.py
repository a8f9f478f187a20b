"""How amounts, addresses and times read."""

from __future__ import annotations

import pytest

from dllm_chat.tui.wording import age, count, dllm, short_address, size
from tests.dllm_chat.tui.doubles import NOW_S


def test_amounts_are_exact() -> None:
    assert [dllm(amount) for amount in (0, 1, 1_500_000)] == ["0 DLLM", "0.000001 DLLM", "1.5 DLLM"]


def test_addresses_keep_prefix_and_both_ends() -> None:
    assert short_address("localprov143k7qqqqqqqqqqqqqq2v0a") == "localprov143k7…2v0a"
    assert short_address("short") == "short"


def test_counts_and_sizes() -> None:
    assert (count(1, "token"), count(1_234, "token")) == ("1 token", "1,234 tokens")
    assert (size(4_683_073_504), size(5_900_000), size(10)) == ("4.7 GB", "5 MB", "1 MB")


@pytest.mark.parametrize(
    ("ago_s", "said"),
    [
        (0, "04:40"),
        (3_600, "03:40"),
        (86_400, "yesterday"),
        (20 * 86_400, "1 Nov"),
        (400 * 86_400, "17 Oct 2024"),
    ],
)
def test_times_are_as_short_as_they_can_be(ago_s: int, said: str) -> None:
    assert age(NOW_S - ago_s, NOW_S) == said
