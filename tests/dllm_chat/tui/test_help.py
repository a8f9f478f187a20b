"""The page of keys at the sizes that people have."""

from __future__ import annotations

import pytest
from textual.widgets import Static

from dllm_chat.history.store import History
from dllm_chat.tui.screens.help import HelpScreen
from tests.dllm_chat.tui.doubles import ScriptedDoor, app_for, until


@pytest.mark.parametrize(
    ("size", "scrolls"), [((60, 24), True), ((80, 24), True), ((120, 36), False)], ids=str
)
async def test_it_says_that_it_scrolls_where_it_does(
    history: History, size: tuple[int, int], scrolls: bool
) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=size) as pilot:
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        subtitle = str(app.screen.query_one("#box").border_subtitle)
        assert ("↑↓ scrolls" in subtitle) is scrolls
        assert "esc back" in subtitle


async def test_what_a_key_does_stands_beside_it_in_a_narrow_terminal_too(history: History) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        cells = list(app.screen.query("Grid > Static"))
        names, meanings = cells[::2], cells[1::2]
        assert any(meaning.region.height > 1 for meaning in meanings)
        assert {meaning.region.x for meaning in meanings} == {names[0].region.right}
        assert {one.region.y for one in names} == {one.region.y for one in meanings}


async def test_no_tokens_are_called_real(history: History) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        shown = "\n".join(str(one.render()) for one in app.screen.query(Static))
        assert "NETWORK" in shown
        assert "real" not in shown
