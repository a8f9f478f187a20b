"""The history keeps what was said, in order, over kill -9."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from dllm_chat.history.records import MessageState, Outcome, Role
from dllm_chat.history.store import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    ticks = count(1_000)
    return History(tmp_path / "data" / "chats.db", clock=lambda: next(ticks))


def test_an_answer_comes_back_with_all_that_is_known_of_it(history: History) -> None:
    conversation_id = history.new_conversation("Vouchers")
    question_id = history.add_question(conversation_id, "What is a voucher?\nShortly.")
    answer_id = history.begin_answer(conversation_id)
    outcome = Outcome(
        MessageState.COMPLETE,
        "A signature.",
        model="guide",
        badge="LOCAL",
        providers=("localprov1aa", "localprov1bb"),
        prompt_tokens=9,
        completion_tokens=4,
        cost_udllm=17,
        fees_udllm=3,
        receipt="/receipts/1.receipt",
        notes=("aa failed; bb went on", "again"),
    )
    history.save_answer(answer_id, outcome)

    question, answer = history.messages(conversation_id, limit=10)
    assert (question.id, question.role, question.text) == (
        question_id,
        Role.USER,
        "What is a voucher?\nShortly.",
    )
    assert (answer.id, answer.role, answer.outcome) == (answer_id, Role.ASSISTANT, outcome)
    listed = history.conversation(conversation_id)
    assert listed is not None
    assert (listed.message_count, listed.spent_udllm) == (2, 20)


def test_a_failed_answer_keeps_code_message_and_hint(history: History) -> None:
    conversation_id = history.new_conversation("x")
    history.add_question(conversation_id, "x")
    answer_id = history.begin_answer(conversation_id)
    failed = Outcome(MessageState.FAILED, "half", error_code="E_X", error_message="no", error_hint="yes")
    history.save_answer(answer_id, failed)
    kept = history.message(answer_id)
    assert kept is not None
    assert kept.outcome == failed


def test_the_list_is_newest_first_and_moves_with_new_messages(history: History) -> None:
    first = history.new_conversation("first")
    second = history.new_conversation("second")
    assert [one.id for one in history.conversations()] == [second, first]
    history.add_question(first, "again")
    assert [one.id for one in history.conversations()] == [first, second]
    assert [one.id for one in history.conversations(limit=1)] == [first]


def test_pages_lead_through_a_long_conversation_both_ways(history: History) -> None:
    conversation_id = history.new_conversation("long")
    ids = [history.add_question(conversation_id, str(number)) for number in range(25)]
    other = history.new_conversation("other")
    history.add_question(other, "not mine")

    assert [one.id for one in history.messages(conversation_id, limit=10)] == ids[15:]
    assert [one.id for one in history.messages(conversation_id, limit=10, before=ids[15])] == ids[5:15]
    assert [one.id for one in history.messages(conversation_id, limit=10, after=ids[4])] == ids[5:15]


def test_renaming_and_deleting(history: History) -> None:
    conversation_id = history.new_conversation("old")
    message_id = history.add_question(conversation_id, "unforgettable")
    history.rename(conversation_id, "  new\nname  ")
    renamed = history.conversation(conversation_id)
    assert renamed is not None
    assert renamed.title == "new name"

    history.delete(conversation_id)
    assert history.conversation(conversation_id) is None
    assert history.message(message_id) is None
    assert history.search("unforgettable") == []


def test_strangers_text_is_stored_without_control_characters(history: History) -> None:
    conversation_id = history.new_conversation("a\x1b]0;evil\x07b")
    answer_id = history.begin_answer(conversation_id)
    history.save_answer(
        answer_id,
        Outcome(
            MessageState.COMPLETE,
            "x\x1b[2Jy\u202ez",
            providers=("p\x9b1\n2",),
            notes=("one\ntwo",),
            badge="L\x07",
        ),
    )
    conversation = history.conversation(conversation_id)
    answer = history.message(answer_id)
    assert conversation is not None
    assert answer is not None
    assert conversation.title == "a]0;evilb"
    assert answer.outcome == Outcome(
        MessageState.COMPLETE, "x[2Jyz", providers=("p12",), notes=("one two",), badge="L"
    )


def test_the_file_is_private(history: History, tmp_path: Path) -> None:
    history.remember("theme", "dllm-light")
    for file in (tmp_path / "data").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_settings_are_remembered_and_replaced(history: History) -> None:
    assert history.setting("theme") == ""
    history.remember("theme", "a")
    history.remember("theme", "b")
    assert history.setting("theme") == "b"


KILLED = """
import os, signal, sys
from pathlib import Path
from dllm_chat.history.records import MessageState, Outcome
from dllm_chat.history.store import History
history = History(Path(sys.argv[1]))
conversation_id = history.new_conversation("killed")
history.add_question(conversation_id, "tell me a long story")
answer_id = history.begin_answer(conversation_id)
for words in range(1, 50):
    history.save_answer(answer_id, Outcome(MessageState.PARTIAL, "word " * words))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_saved_of_a_streaming_answer_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL

    history = History(path)
    (conversation,) = history.conversations()
    question, answer = history.messages(conversation.id, limit=5)
    assert question.text == "tell me a long story"
    assert (answer.state, answer.text) == (MessageState.PARTIAL, "word " * 49)
    assert history.search("long story")[0].conversation_id == conversation.id


def test_two_programs_share_one_history(tmp_path: Path) -> None:
    one, two = History(tmp_path / "chats.db"), History(tmp_path / "chats.db")
    first = one.new_conversation("by one")
    two.add_question(first, "by two")
    assert [message.text for message in one.messages(first, limit=5)] == ["by two"]
