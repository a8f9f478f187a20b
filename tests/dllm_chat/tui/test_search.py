"""The search, from its first moment on."""

from __future__ import annotations

import pytest
from textual.widgets import Input, OptionList, Static

from dllm_chat.history.store import History
from dllm_chat.tui.app import ChatApp
from dllm_chat.tui.screens.search import SearchScreen
from dllm_chat.tui.widgets.question import QuestionView
from tests.dllm_chat.tui.doubles import NOW_S, ScriptedDoor, app_for, until


@pytest.fixture
def kept(history: History) -> History:
    for age_s, title in ((7_200, "Older"), (3_600, "Newer")):
        history._clock = lambda then_s=NOW_S - age_s: then_s
        history.add_question(history.new_conversation(title), f"about {title.lower()}")
    return history


def listed(app: ChatApp) -> list[str]:
    options = app.screen.query_one("#finds", OptionList)
    return [str(options.get_option_at_index(number).prompt) for number in range(options.option_count)]


def summary(app: ChatApp) -> str:
    return str(app.screen.query_one("#summary", Static).content)


async def test_the_latest_conversations_stand_there_until_something_is_typed(kept: History) -> None:
    app = app_for(ScriptedDoor(), kept)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+f")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        recent = ["Newer  1 message · 03:40", "Older  1 message · 02:40"]
        assert listed(app) == recent
        assert "latest" in summary(app)
        await pilot.press(*"older")
        await until(pilot, lambda: "find" in summary(app))
        assert listed(app) == ["Older  you · 02:40\n  about older"]
        app.screen.query_one(Input).value = " "
        await until(pilot, lambda: listed(app) == recent)


async def test_enter_opens_the_latest(kept: History) -> None:
    app = app_for(ScriptedDoor(), kept)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+f")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.chat.query(QuestionView)))
        assert str(app.chat.query_one(QuestionView).content) == "about newer"


async def test_nothing_to_search_is_said(history: History) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+f")
        await until(pilot, lambda: isinstance(app.screen, SearchScreen))
        assert "no conversations yet" in summary(app)
        await pilot.press("enter")
        assert isinstance(app.screen, SearchScreen)
