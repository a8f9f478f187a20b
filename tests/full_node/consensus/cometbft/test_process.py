"""What CometBFT is started with."""

from __future__ import annotations

import os

import pytest

from full_node.consensus.cometbft.process import GO_PROCESSORS_MIN, engine_environment


@pytest.mark.parametrize(("ours", "wanted"), [(1, GO_PROCESSORS_MIN), (12, 12)])
def test_go_gets_the_processors_that_we_may_use_and_some_at_least(
    monkeypatch: pytest.MonkeyPatch, ours: int, wanted: int
) -> None:
    monkeypatch.delenv("GOMAXPROCS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(ours)), raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert engine_environment()["GOMAXPROCS"] == str(wanted)


def test_what_the_operator_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMAXPROCS", "2")
    assert engine_environment() == dict(os.environ)
