"""Layers as people write them: ``FIRST:END``."""

from __future__ import annotations

import re

from dllm_protocol.errors import UsageRefused

AUTO_LAYERS = "auto"
"""The network chooses."""
_LAYERS = re.compile(r"([0-9]{1,4})?:([0-9]{1,4})?")


def check_layer_range(text: str) -> None:
    """Refuse what is no range, before it is known of which model.

    Raises:
        UsageRefused
    """
    parse_layers(text, 2)


def parse_layers(text: str, layers: int) -> tuple[int, int]:
    """First layer and the one behind the last; what is left out is the model's beginning or end.

    Whether the model has such layers is for its manifest to say.

    Raises:
        UsageRefused: it is no range.
    """
    match = _LAYERS.fullmatch(text)
    if match is None:
        raise UsageRefused(
            f"{text[:40]!r} is no range of layers", hint=f"for example 0:{max(1, layers // 2)}"
        )
    return int(match[1] or 0), int(match[2]) if match[2] else layers
