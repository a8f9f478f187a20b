"""Toasts are seen, and what a person works with is seen beside them."""

from __future__ import annotations

import pytest
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widgets import Button, Footer

from dllm_chat.history.store import History
from dllm_chat.tui.app import ChatApp
from dllm_chat.tui.screens.dialog import Choice
from dllm_chat.tui.widgets.header import TopLine
from dllm_chat.tui.widgets.prompt import Prompt
from dllm_chat.tui.widgets.status import StatusLine
from tests.dllm_chat.tui.doubles import ScriptedDoor, app_for, until
from tests.dllm_chat.tui.test_chat import is_open

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 36)], ids=["80x24", "120x36"])


async def toasted(app: ChatApp, pilot: Pilot[None], count: int) -> list[Region]:
    """What is seen of so many toasts, once they are drawn."""
    await until(pilot, lambda: len([one for one in app.screen.query("Toast") if one.region]) == count)
    return [app.screen.find_widget(toast).visible_region for toast in app.screen.query("Toast")]


@SIZES
@pytest.mark.parametrize(
    "message", ["Press ctrl+c again to quit.", "nobody answered " * 60], ids=["short", "long"]
)
async def test_a_toast_leaves_input_status_and_footer_free(
    history: History, size: tuple[int, int], message: str
) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: is_open(app))
        app.chat.query_one(Prompt).load_text("a line\n" * 40)
        for number in range(4):
            app.notify(f"{number} {message}", title="E_NETWORK", timeout=600)
        toasts = await toasted(app, pilot, 4)
        assert toasts[0]
        for widget in (TopLine, Prompt, StatusLine, Footer):
            region = app.chat.query_one(widget).region
            assert not [toast for toast in toasts if toast and toast.overlaps(region)], widget


@SIZES
async def test_a_toast_leaves_the_focused_button_free(history: History, size: tuple[int, int]) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: is_open(app))
        await pilot.press("ctrl+c", "ctrl+c")
        await until(pilot, lambda: isinstance(app.screen, Choice))
        (toast,) = await toasted(app, pilot, 1)
        assert toast
        assert not any(toast.overlaps(button.region) for button in app.screen.query(Button))
