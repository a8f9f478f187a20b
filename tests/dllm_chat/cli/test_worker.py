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
