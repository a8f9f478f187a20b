"""Somebody from outside the bundle must be able to notice, except where there is nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.network.errors import WitnessNeeded
from dllm_chat.network.witnesses import (
    distinct,
    keep_witnesses,
    outside,
    own_witnesses,
    require_outside_witness,
)
from dllm_chat.paths import find_paths
from dllm_protocol.bundle import TEST_PREFIX
from dllm_protocol.errors import UsageRefused
from tests.dllm_protocol.test_bundle import make_bundle

REAL = replace(
    make_bundle("dllm"), sources=("ws://a.example:1/websocket",), witnesses=("ws://b.example:1/websocket",)
)
STRANGER = "ws://c.example:1/websocket"


@pytest.mark.parametrize(
    "witnesses",
    [(), ("ws://a.example:1/websocket",), ("ws://B.example:1/other", "ws://a.example:1/websocket")],
)
def test_nodes_of_the_publishers_choice_do_not_count(witnesses: tuple[str, ...]) -> None:
    assert outside(REAL, witnesses) == ()
    with pytest.raises(WitnessNeeded, match="chosen by the bundle's publisher"):
        require_outside_witness(REAL, witnesses)


def test_one_from_elsewhere_is_enough() -> None:
    require_outside_witness(REAL, ("ws://a.example:1/websocket", STRANGER))


@pytest.mark.parametrize(
    ("prefix", "source", "needed"),
    [
        (TEST_PREFIX, "ws://127.0.0.1:1/websocket", False),
        (TEST_PREFIX, "ws://localhost:1/websocket", False),
        (TEST_PREFIX, "ws://a.example:1/websocket", True),
        ("dllm", "ws://127.0.0.1:1/websocket", True),
    ],
)
def test_only_a_test_network_on_this_machine_needs_none(prefix: str, source: str, needed: bool) -> None:
    bundle = replace(make_bundle(prefix), sources=(source,))
    if needed:
        with pytest.raises(WitnessNeeded):
            require_outside_witness(bundle, ())
    else:
        require_outside_witness(bundle, ())


def test_they_are_remembered_by_chain(tmp_path: Path) -> None:
    paths = find_paths(tmp_path)
    assert own_witnesses(paths, "chain-1") == ()
    keep_witnesses(paths, "chain-1", (STRANGER, "ws://d.example:2/websocket"))
    assert own_witnesses(paths, "chain-1") == (STRANGER, "ws://d.example:2/websocket")
    assert own_witnesses(paths, "chain-2") == ()
    (paths.networks / "chain-1" / "witnesses").write_text("not://an.address\n")
    with pytest.raises(UsageRefused):
        own_witnesses(paths, "chain-1")


def test_a_node_is_asked_once_however_often_it_is_named() -> None:
    named = [STRANGER, "ws://127.0.0.1:5/websocket", "ws://localhost:5/websocket", STRANGER]
    assert distinct(named) == (STRANGER, "ws://127.0.0.1:5/websocket")
    assert len(distinct([f"ws://n{number}.example:1/websocket" for number in range(50)])) == 32
