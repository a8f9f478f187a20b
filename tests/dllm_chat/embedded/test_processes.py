"""Children of the supervisor: restarted while there is hope, ended for sure, never orphaned."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dllm_chat.embedded.processes import RESTART_PAUSES_S, Child
from tests.e2e.machine import soon

DEADLINE_S = 60.0
OBEDIENT = "import sys; sys.stdin.read()"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"


def make_child(tmp_path: Path, program: str) -> Child:
    return Child("the child", [sys.executable, "-c", program], tmp_path / "child.log")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_closing_its_lifeline_ends_a_child(tmp_path: Path) -> None:
    child = make_child(tmp_path, OBEDIENT)
    await child.start()
    pid = child.pid
    assert child.running and alive(pid)
    await child.stop()
    assert not child.running and not alive(pid)


async def test_a_killed_child_comes_back_with_another_pid(tmp_path: Path) -> None:
    child = make_child(tmp_path, OBEDIENT)
    await child.start()
    first = child.pid
    os.kill(first, signal.SIGKILL)
    await soon(lambda: child.running and child.pid != first, DEADLINE_S, "it")
    await child.stop()
    assert not child.running


async def test_a_child_that_always_dies_is_given_up_with_its_code_and_last_words(tmp_path: Path) -> None:
    child = make_child(tmp_path, "import sys; print('no luck', flush=True); sys.exit(3)")
    child.restart_pauses_s = (0.0,) * len(RESTART_PAUSES_S)
    await child.start()
    await soon(lambda: bool(child.failed), DEADLINE_S, "it")
    assert "code 3" in child.failed
    assert "no luck" in child.log_tail()
    await child.stop()


async def test_a_child_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    child = make_child(tmp_path, STUBBORN)
    child.stop_timeout_s = 0.2
    await child.start()
    await soon(lambda: "up" in child.log_tail(), DEADLINE_S, "it")
    pid = child.pid
    await child.stop()
    assert not alive(pid)
