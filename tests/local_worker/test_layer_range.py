"""Ranges of layers as people write them."""

from __future__ import annotations

import pytest

from dllm_protocol.errors import UsageRefused
from local_worker.layer_range import check_layer_range, parse_layers


def test_either_end_of_a_range_may_be_left_out() -> None:
    assert [parse_layers(text, 12) for text in ("3:7", ":7", "3:", ":")] == [(3, 7), (0, 7), (3, 12), (0, 12)]
    for text in ("", "3", "-1:2", "3:7:9", "a:b", "3 : 7", "12345:6", "٣:7"):
        with pytest.raises(UsageRefused):
            parse_layers(text, 12)
        with pytest.raises(UsageRefused):
            check_layer_range(text)
