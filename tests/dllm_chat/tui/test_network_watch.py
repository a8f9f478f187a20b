"""What is said of a worker that does not serve: whole, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_chat.contributing import WorkerFailed
from dllm_chat.history.store import History
from dllm_chat.session.events import WorkerStatus
from dllm_chat.tui.app import ChatApp
from tests.dllm_chat.tui.doubles import OFF, ScriptedDoor, app_for, until
from tests.dllm_chat.tui.test_chat import is_open, words

SIZE = (80, 24)
PROBLEM = "the file's root is " + "ab" * 32 + ", guide promises " + "cd" * 32 + ": fetch the model again"
FAILED = WorkerStatus(False, "failed", "", "", 0, 0.0, 0, PROBLEM)


class FailingDoor(ScriptedDoor):
    """Its worker fails: as it is switched on, or later."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self._at_once = at_once

    async def worker_on(self, model_file: Path | None = None) -> None:
        await super().worker_on(model_file)
        if self._at_once:
            self.worker = FAILED
            raise WorkerFailed(PROBLEM, hint="see its log")


def told(app: ChatApp) -> list[str]:
    return [one.message for one in app._notifications if PROBLEM in one.message]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_worker_that_fails_is_told_whole_and_once(history: History, at_once: bool) -> None:
    door = FailingDoor(at_once=at_once)
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "worker_on" in door.calls)
        door.worker = FAILED
        for _ in range(3):
            await app.chat.network.poll()
        await until(pilot, lambda: "! failed: the file's root" in words(app, "#doing"))
        assert len(told(app)) == 1
        # On again is another try, whose failure is news.
        await pilot.press("ctrl+g")
        await until(pilot, lambda: door.calls.count("worker_on") == 2)
        door.worker = FAILED
        await app.chat.network.poll()
        await until(pilot, lambda: len(told(app)) == 2)


async def test_what_failed_before_is_in_the_status_line_and_no_news(history: History) -> None:
    door = ScriptedDoor()
    door.worker = FAILED
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app) and "! failed" in words(app, "#doing"))
        await app.chat.network.poll()
        assert told(app) == []
        door.worker = OFF
        await app.chat.network.poll()
        await until(pilot, lambda: "failed" not in words(app, "#doing"))
