"""A worker that does not run is off, and asking about it starts nothing."""

from collections.abc import Callable
from pathlib import Path

from tests.dllm_chat.cli.conftest import Ran


def test_without_a_worker_status_and_off_start_nothing(dllm: Callable[..., Ran], tmp_home: Path) -> None:
    status = dllm("worker", "status", "--json")
    assert (status.code, status.data["state"], status.data["running"]) == (0, "off", False)
    off = dllm("worker", "off", "--json")
    assert (off.code, off.data["was_running"]) == (0, False)
    assert list(tmp_home.iterdir()) == []


def test_a_relay_is_refused_where_nobody_else_is_on_the_network(dllm: Callable[..., Ran]) -> None:
    ran = dllm("worker", "on", "--relay", "wss://relay.example", "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_USAGE")
    assert "--relay" in ran.error["message"] and "network join" in ran.error["hint"]


def test_pieces_are_refused_where_nobody_else_is_on_the_network(dllm: Callable[..., Ran]) -> None:
    ran = dllm("worker", "on", "--package", "big.package", "--layers", "auto", "--name", "big", "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_USAGE")
    assert "--package" in ran.error["message"] and "network join" in ran.error["hint"]
    two = dllm("worker", "on", "--package", "big.package", "--model", "m.gguf", "--json")
    assert (two.code, two.error["message"]) == (2, "--package stands alone")
    lone = dllm("worker", "on", "--peer", "192.0.2.7:6881", "--json")
    assert lone.code == 2 and "--package DIR" in lone.error["hint"]
