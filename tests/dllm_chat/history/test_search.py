"""Any word is found, and no word is an operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.history.records import MessageState, Outcome, Role
from dllm_chat.history.search import fts_query
from dllm_chat.history.store import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "chats.db", clock=lambda: 1_000)
    for title, question, answer in (
        ("Payments", "What is a voucher?", "A **voucher** is your signature\nunder what you owe."),
        ("Trip", "Where is Lisbon?", "In Portugal; the café by the river is good."),
    ):
        conversation_id = history.new_conversation(title)
        history.add_question(conversation_id, question)
        answer_id = history.begin_answer(conversation_id)
        history.save_answer(answer_id, Outcome(MessageState.COMPLETE, answer))
    return history


def test_words_are_found_in_questions_and_answers(history: History) -> None:
    hits = history.search("voucher")
    assert {hit.role for hit in hits} == {Role.USER, Role.ASSISTANT}
    assert {hit.title for hit in hits} == {"Payments"}
    answer = next(hit for hit in hits if hit.role is Role.ASSISTANT)
    assert ("voucher", True) in answer.snippet
    assert not any("\n" in text for text, _ in answer.snippet)


def test_titles_are_found_and_come_first(history: History) -> None:
    hit = history.search("trip")[0]
    assert (hit.title, hit.message_id, hit.role) == ("Trip", None, None)


def test_a_title_is_left_out_where_its_messages_are_found(history: History) -> None:
    conversation_id = history.new_conversation("What is a receipt?")
    question_id = history.add_question(conversation_id, "What is a receipt?")
    history.new_conversation("My receipt")
    hits = history.search("receipt")
    assert [(hit.title, hit.message_id) for hit in hits] == [
        ("My receipt", None),
        ("What is a receipt?", question_id),
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("vouch", True),
        ("signature voucher", True),
        ("voucher lisbon", False),
        ("cafe", True),
        ("CAFÉ", True),
        ("", False),
        ("   ", False),
        ("*", False),
        ("-", False),
        ('" OR "', False),
        ("voucher NOT signature", False),
        ("text:voucher", False),
    ],
)
def test_what_people_type(history: History, words: str, found: bool) -> None:
    assert bool(history.search(words)) is found


def test_a_streamed_answer_is_found_by_its_latest_text_only(history: History) -> None:
    conversation_id = history.new_conversation("Stream")
    answer_id = history.begin_answer(conversation_id)
    history.save_answer(answer_id, Outcome(MessageState.PARTIAL, "zebra"))
    assert history.search("zebra")
    history.save_answer(answer_id, Outcome(MessageState.COMPLETE, "giraffe"))
    assert not history.search("zebra")
    assert history.search("giraffe")


def test_the_number_of_finds_is_bounded(history: History) -> None:
    conversation_id = history.new_conversation("many")
    for _ in range(80):
        history.add_question(conversation_id, "needle")
    assert len(history.search("needle")) == 50


@given(st.text(max_size=60))
def test_no_text_breaks_the_query(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    history = History(tmp_path_factory.getbasetemp() / "any.db")
    assert history.search(words) == []
    assert fts_query(words).count('"') % 2 == 0
    history.close()
