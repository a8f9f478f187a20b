"""The machine's clock, watched."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dllm_chat.embedded.clock import FLOOR_FILE, JumpWatch, read_floor_ns


def test_the_floor_is_what_was_written_and_nothing_else_counts(tmp_path: Path) -> None:
    assert read_floor_ns(tmp_path) == 0
    (tmp_path / FLOOR_FILE).write_text("123")
    assert read_floor_ns(tmp_path) == 123
    (tmp_path / FLOOR_FILE).write_text("yesterday")
    assert read_floor_ns(tmp_path) == 0


@pytest.mark.parametrize("jump_s", [-3600, 20 * 24 * 3600])
def test_a_jump_is_noticed_once(monkeypatch: pytest.MonkeyPatch, jump_s: int) -> None:
    watch = JumpWatch()
    assert abs(watch.jumped_ns()) < 10**9
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump_s * 10**9)
    assert abs(watch.jumped_ns() - jump_s * 10**9) < 10**9
    assert abs(watch.jumped_ns()) < 10**9
