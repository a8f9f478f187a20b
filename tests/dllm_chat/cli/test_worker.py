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
