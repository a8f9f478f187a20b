"""Layers are written as they are typed everywhere: the end is not included."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dllm_chat.cli import service
from tests.dllm_chat.cli.conftest import Ran
from tests.dllm_chat.cli.world_chain import opened_by
from tests.full_node.state_machine.world import MODEL, World


def test_layers_of_an_offer_are_shown_as_they_are_typed(
    dllm: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(chunked=True)
    world.provide("bob", layers=(1, 3))
    world.block(after_ms=20_000)
    world.provide("carol", layers=(0, 1))  # a transaction of the next epoch freezes the book
    monkeypatch.setattr(service, "watching", opened_by(world, "alice"))
    (offer,) = (one for one in dllm("provider", "list", "--json").data["offers"] if one["layers"] != [0, 1])
    assert offer["layers"] == [1, 3]
    (line,) = (line for line in dllm("provider", "list").out.splitlines() if offer["provider"] in line)
    assert line.split()[1:3] == [MODEL, "1:3"]
