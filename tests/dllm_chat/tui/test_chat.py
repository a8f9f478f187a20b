"""What a person does in the chat, key by key, over a door that follows a script."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList, Static
from textual.widgets.markdown import Markdown

from dllm_chat.history.records import MessageState, Outcome
from dllm_chat.history.store import History
from dllm_chat.models_found import FoundModel
from dllm_chat.session.events import Spent, TookOver
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.tui.app import ChatApp
from dllm_chat.tui.screens.dialog import Choice
from dllm_chat.tui.screens.first_run import FirstRunScreen
from dllm_chat.tui.widgets.prompt import Prompt
from dllm_chat.tui.widgets.reply import ReplyView
from dllm_chat.tui.widgets.sidebar import Sidebar
from dllm_chat.tui.widgets.transcript import PAGE, WINDOW, Edge, Transcript
from dllm_chat.tui.widgets.welcome import Welcome
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.errors import NetworkUnreachable, TransactionRefused
from tests.dllm_chat.tui.doubles import (
    BALANCE,
    WORKER_A,
    WORKER_B,
    ScriptedDoor,
    answered,
    app_for,
    deltas,
    opening,
    type_and_send,
    until,
    whole,
)

SIZE = (120, 36)


def words(app: ChatApp, selector: str) -> str:
    return "\n".join(str(static.content) for static in app.chat.query(selector).results(Static))


def is_open(app: ChatApp) -> bool:
    return app.chat.network.view.phase == "open" and app.chat.network.view.balance is not None


def is_idle(app: ChatApp) -> bool:
    return app.chat._asking is None


async def test_a_question_is_answered_shown_and_kept(history: History) -> None:
    door = ScriptedDoor(whole("**Yes**, it is."))
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "Is it so?")
        await until(pilot, lambda: is_idle(app) and bool(door.asked))
        assert app.chat.query_one(ReplyView).query_one(Markdown).source == "**Yes**, it is."
        foot = words(app, ".reply--foot")
        for part in ("LOCAL", "14 → 143 tokens", "0.0007 DLLM", "local1q8f4…3k2m", "7f3a19c2-0003.receipt"):
            assert part in foot
        assert app.chat.query_one(Prompt).text == ""
        assert "spent 0.0007 DLLM" in words(app, "#facts")
    (conversation,) = history.conversations()
    assert conversation.title == "Is it so?"
    question, answer = history.messages(conversation.id, limit=5)
    assert (question.text, answer.text, answer.state) == (
        "Is it so?",
        "**Yes**, it is.",
        MessageState.COMPLETE,
    )
    assert "aclose" not in door.calls


async def test_the_network_comes_after_the_first_paint_and_a_question_waits_for_it(history: History) -> None:
    door = ScriptedDoor(whole("hi"))
    door.open_gate = asyncio.Event()
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: "starting the node" in words(app, "#doing"))
        await type_and_send(pilot, "early")
        assert app.chat.query_one(Prompt).text == "early"
        assert door.asked == []
        door.open_gate.set()
        await until(pilot, lambda: is_open(app) and is_idle(app) and bool(door.asked))
        assert app.chat.query_one(Prompt).text == ""
        assert "✓ verified 142" in words(app, "#facts")
        assert "play money" in words(app, "#balance")


async def test_a_waiting_question_that_was_changed_does_not_go_out(history: History) -> None:
    door = ScriptedDoor(whole("hi"))
    door.open_gate = asyncio.Event()
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: door.calls == ["open"])
        await type_and_send(pilot, "early")
        await pilot.press("x")
        door.open_gate.set()
        await until(pilot, lambda: is_open(app))
        assert door.asked == []
        assert "x" in app.chat.query_one(Prompt).text


async def test_escape_stops_and_keeps_what_came(history: History) -> None:
    door = ScriptedDoor([*opening(), *deltas("Once upon a time"), asyncio.Event()])
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "A story")
        await until(pilot, lambda: app.chat.query_one(ReplyView).query_one(Markdown).source != "")
        await pilot.press("escape")
        await until(pilot, lambda: is_idle(app))
        assert "stopped by you" in words(app, ".reply--foot")
    answer = history.messages(history.conversations()[0].id, limit=5)[1]
    assert (answer.state, answer.text) == (MessageState.STOPPED, "Once upon a time")


async def test_while_text_comes_its_tokens_are_counted_and_the_quote_is_shown_once(history: History) -> None:
    door = ScriptedDoor([*opening(), *deltas("Once upon a time", 4), asyncio.Event()])
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "A story")
        await until(pilot, lambda: "● 4 tokens so far" in words(app, ".reply--foot"))
        assert "esc stops" in words(app, ".reply--foot")
        assert "0.001438" not in words(app, ".reply--foot")
        assert "quote ≤ 0.001438 DLLM" in words(app, "#doing")
        await pilot.press("escape")
        await until(pilot, lambda: is_idle(app))
        assert "so far" not in words(app, ".reply--foot")


async def test_the_quote_is_told_before_anything_is_locked(history: History) -> None:
    app = app_for(ScriptedDoor([*opening()[:2], asyncio.Event()]), history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "A story")
        await until(pilot, lambda: "likely 0.000526, at most 0.001438 DLLM" in words(app, ".reply--foot"))


async def test_an_error_stands_in_place_and_the_question_comes_back(history: History) -> None:
    refused = TransactionRefused("spendable 3, needed 500", hint="settle open sessions")
    door = ScriptedDoor([refused], whole("Now it works."))
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "Hello\nthere")
        await until(pilot, lambda: is_idle(app))
        error = words(app, ".reply--error")
        for part in ("E_TX", "spendable 3, needed 500", "settle open sessions"):
            assert part in error
        assert app.chat.query_one(Prompt).text == "Hello\nthere"
        await pilot.press("enter")
        await until(pilot, lambda: is_idle(app) and len(door.asked) == 2)
        assert len(app.chat.query(ReplyView)) == 1
    assert [one.text for one in history.messages(1, limit=9)] == ["Hello\nthere", "Now it works."]


async def test_a_takeover_is_a_discreet_line(history: History) -> None:
    script = [
        *opening(),
        *deltas("One "),
        TookOver(WORKER_A, WORKER_B, "connection \x1b[2Jlost"),
        *deltas("two."),
        answered("One two.", providers=(WORKER_A, WORKER_B)),
    ]
    app = app_for(ScriptedDoor(script), history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "Count")
        await until(pilot, lambda: is_idle(app))
        note = words(app, ".reply--notes")
        assert "local1q8f4…3k2m failed (connection [2Jlost); local1zt6y…n7x5 went on" in note
        assert "→ local1zt6y…n7x5" in words(app, ".reply--foot")


async def test_earlier_messages_go_with_a_question_but_failed_ones_do_not(history: History) -> None:
    door = ScriptedDoor(whole("A1"), [NetworkUnreachable("gone")], whole("A3"))
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        for number, question in enumerate(("Q1", "Q2", "Q3"), 1):
            app.chat.query_one(Prompt).clear()
            await type_and_send(pilot, question)
            await until(pilot, lambda n=number: is_idle(app) and len(door.asked) == n)
    assert door.asked[2][0] == (
        ChatMessage("user", "Q1"),
        ChatMessage("assistant", "A1"),
        ChatMessage("user", "Q3"),
    )


async def test_what_was_answered_before_a_stage_had_nobody_left_is_kept_and_told_again(
    history: History,
) -> None:
    gone = LegFailed("localprov1abc: its channel failed; nobody is left who answers for layers [1, 3)")
    door = ScriptedDoor(
        [*opening(), *deltas("Half an "), *deltas("answer"), Spent(150, 8), gone], whole("A2")
    )
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "Q1")
        await until(pilot, lambda: is_idle(app) and len(door.asked) == 1)
        assert app.chat.query_one(ReplyView).query_one(Markdown).source == "Half an answer"
        error = words(app, ".reply--error")
        assert "layers [1, 3)" in error and "localprov1abc" in error
        assert "0.000158" in words(app, ".reply--foot")
        assert "spent 0.000158 DLLM" in words(app, "#facts")
        app.chat.query_one(Prompt).clear()
        await type_and_send(pilot, "Q2")
        await until(pilot, lambda: is_idle(app) and len(door.asked) == 2)
    answer = history.messages(history.conversations()[0].id, limit=9)[1]
    assert (answer.state, answer.text) == (MessageState.FAILED, "Half an answer")
    assert door.asked[1][0] == (
        ChatMessage("user", "Q1"),
        ChatMessage("assistant", "Half an answer"),
        ChatMessage("user", "Q2"),
    )


async def test_an_answer_goes_on_while_another_conversation_is_on_screen(history: History) -> None:
    gate = asyncio.Event()
    app = app_for(
        ScriptedDoor([*opening(), *deltas("Begun, "), gate, *deltas("ended."), answered("Begun, ended.")]),
        history,
    )
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "Go")
        await until(pilot, lambda: app.chat.query_one(ReplyView).query_one(Markdown).source != "")
        await pilot.press("ctrl+n")
        await pilot.pause()
        assert not app.chat.query(ReplyView)
        await type_and_send(pilot, "Second")
        assert app.chat.query_one(Prompt).text == "Second"
        app.chat.query_one(Sidebar).post_message(Sidebar.Chosen(1))
        await until(pilot, lambda: bool(app.chat.query(ReplyView)))
        gate.set()
        await until(pilot, lambda: is_idle(app))
        assert app.chat.query_one(ReplyView).query_one(Markdown).source == "Begun, ended."
    assert history.messages(1, limit=5)[1].text == "Begun, ended."


async def test_newline_keys_and_enter(history: History) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=SIZE) as pilot:
        prompt = app.chat.query_one(Prompt)
        await pilot.press("a", "shift+enter", "b", "ctrl+j", "c")
        assert prompt.text == "a\nb\nc"
        prompt.load_text("   ")
        await pilot.press("enter")
        await pilot.pause()
        assert history.conversations() == []


async def test_rename_and_delete_ask_first(history: History) -> None:
    conversation_id = history.new_conversation("Old")
    history.add_question(conversation_id, "x")
    app = app_for(ScriptedDoor(), history, conversation_id=conversation_id)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.press("f2")
        await pilot.pause()
        app.screen.query_one(Input).value = "New"
        await pilot.press("enter")
        await until(pilot, lambda: history.conversations()[0].title == "New")
        await pilot.press("ctrl+d")
        await pilot.pause()
        await pilot.press("enter")  # the harmless answer has the focus
        await pilot.pause()
        assert history.conversations()
        await pilot.press("ctrl+d")
        await pilot.pause()
        await pilot.click("#delete")
        await until(pilot, lambda: history.conversations() == [])
        assert "New conversation" in words(app, "#title")


async def test_search_leads_to_the_message(history: History) -> None:
    conversation_id = history.new_conversation("Long")
    for number in range(200):
        history.add_question(conversation_id, "the needle" if number == 50 else f"hay {number}")
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.press("ctrl+f", *"needle", "enter")
        await until(pilot, lambda: bool(app.chat.query_one(Transcript).views))
        ids = [view.message_id for view in app.chat.query_one(Transcript).views]
        assert 51 in ids
        assert len(app.chat.query(Edge)) == 2


async def test_a_long_history_is_a_window_that_moves(history: History) -> None:
    conversation_id = history.new_conversation("Long")
    for number in range(200):
        history.add_question(conversation_id, f"hay {number}")
    app = app_for(ScriptedDoor(), history, conversation_id=conversation_id)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        transcript = app.chat.query_one(Transcript)
        assert [view.message_id for view in transcript.views] == list(range(181, 201))
        for _ in range(5):
            await transcript.load(earlier=True)
        assert len(transcript.views) == WINDOW
        assert transcript.views[0].message_id == 181 - 5 * PAGE
        await transcript.load(earlier=False)
        assert len(transcript.views) == WINDOW
        assert transcript.views[0].message_id == 181 - 4 * PAGE


async def test_contributing_is_one_key(history: History) -> None:
    door = ScriptedDoor()
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "serving · earned 0.01234 DLLM" in words(app, "#doing"))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "serving" not in words(app, "#doing"))
    assert [call for call in door.calls if call.startswith("worker")] == ["worker_on", "worker_off"]


async def test_the_chosen_model_is_asked_and_remembered(history: History) -> None:
    door = ScriptedDoor(whole("hi"))
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await pilot.press("ctrl+o")
        await pilot.pause()
        await pilot.press("down", "enter")
        await until(pilot, lambda: "mistral-7b@stable" in words(app, "#model"))
        await type_and_send(pilot, "hello")
        await until(pilot, lambda: is_idle(app) and bool(door.asked))
    assert door.asked[0][1].model == "mistral-7b@stable"
    assert history.setting("model") == "mistral-7b@stable"


async def test_the_first_run_offers_models_and_serves_the_chosen_one(history: History) -> None:
    found = FoundModel(Path("/models/tiny.gguf"), "tiny", 2_000_000_000, "Ollama")
    door = ScriptedDoor()
    app = app_for(door, history, welcomed=False, models=[found])
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and is_open(app))
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 2)
        await pilot.press("down", "enter")
        await until(pilot, lambda: door.worker_files == [found.path])
    assert history.setting("welcomed") == "1"


async def test_a_long_name_of_a_model_takes_one_line(history: History) -> None:
    found = [
        FoundModel(
            Path("/m/a.gguf"), "Qwen2.5-Coder-7B-Instruct-Q4_K_M-imatrix", 4_683_073_504, "Hugging Face"
        )
    ]
    app = app_for(ScriptedDoor(), history, welcomed=False, models=found)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and is_open(app))
        options = app.screen.query_one(OptionList)
        await until(pilot, lambda: options.option_count == 2)
        assert options.virtual_size.height == 2


async def test_a_failed_start_says_why_and_enter_tries_again(history: History) -> None:
    door = ScriptedDoor(whole("hi"))
    door.open_error = NetworkUnreachable("the node \x1b[31mdied", hint="look at the log")
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(
            pilot, lambda: "E_NETWORK  the node [31mdied\n→ look at the log" in words(app, "FailureView")
        )
        assert "E_NETWORK" in words(app, "#doing")
        assert "✗ offline" in words(app, "#facts")
        door.open_error = None
        await type_and_send(pilot, "again")
        await until(pilot, lambda: is_open(app) and is_idle(app) and bool(door.asked))
        assert door.asked[0][0] == (ChatMessage("user", "again"),)


async def test_losing_the_network_shows_offline_with_the_reason(history: History) -> None:
    door = ScriptedDoor()
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        door.refresh_error = NetworkUnreachable("127.0.0.1 refused the connection")
        await app.chat.network.poll()
        await pilot.pause()
        assert "✗ offline 142" in words(app, "#facts")
        assert "127.0.0.1 refused the connection" in words(app, "#doing")


@pytest.mark.parametrize(("answer", "settled"), [("#settle", True), ("#leave", False)])
async def test_quitting_asks_about_open_sessions(history: History, answer: str, settled: bool) -> None:
    door = ScriptedDoor()
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await pilot.press("ctrl+c", "ctrl+c")
        await until(pilot, lambda: isinstance(app.screen, Choice))
        await pilot.click(answer)
        await until(pilot, lambda: not app.is_running or app._exit)
    assert ("close_sessions" in door.calls) is settled


async def test_quitting_with_nothing_locked_asks_nothing(history: History) -> None:
    from dataclasses import replace

    app = app_for(ScriptedDoor(balance=replace(BALANCE, in_sessions_udllm=0)), history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app._exit)
        assert not isinstance(app.screen, Choice)


async def test_a_link_shows_its_whole_address_before_it_opens(history: History) -> None:
    app = app_for(ScriptedDoor(whole("[click](https://x.example/%1b%5d52;c;evil)")), history)
    opened: list[str] = []
    async with app.run_test(size=SIZE) as pilot:
        app.open_url = opened.append  # type: ignore[assignment,method-assign]  # calls are watched
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "link?")
        await until(pilot, lambda: is_idle(app))
        markdown = app.chat.query_one(ReplyView).query_one(Markdown)
        markdown.post_message(Markdown.LinkClicked(markdown, "https://x.example/%1b%5d52;c;evil"))
        await until(pilot, lambda: isinstance(app.screen, Choice))
        shown = "\n".join(str(static.content) for static in app.screen.query(Static))
        assert "https://x.example/]52;c;evil" in shown
        assert "\x1b" not in shown
        assert opened == []


async def test_an_interrupted_answer_says_so_when_it_is_read_again(history: History) -> None:
    conversation_id = history.new_conversation("Killed")
    history.add_question(conversation_id, "x")
    answer_id = history.begin_answer(conversation_id)
    history.save_answer(answer_id, Outcome(MessageState.PARTIAL, "half an ans"))
    app = app_for(ScriptedDoor(), history, conversation_id=conversation_id)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "interrupted" in words(app, ".reply--foot")


async def test_a_narrow_terminal_hides_the_list_until_it_is_asked_for(history: History) -> None:
    app = app_for(ScriptedDoor(), history)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert not app.chat.query_one(Sidebar).display
        await pilot.press("f3")
        await pilot.pause()
        assert app.chat.query_one(Sidebar).display
        shown = app.chat.query_one(Transcript).region
        assert shown.contains_region(app.chat.query_one(Welcome).region)


async def test_quitting_in_the_middle_of_an_answer_keeps_what_came(history: History) -> None:
    door = ScriptedDoor([*opening(), *deltas("Half of it"), asyncio.Event()])
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: is_open(app))
        await type_and_send(pilot, "All of it")
        await until(pilot, lambda: app.chat.query_one(ReplyView).query_one(Markdown).source != "")
    answer = history.messages(1, limit=5)[1]
    assert (answer.state, answer.text) == (MessageState.STOPPED, "Half of it")
