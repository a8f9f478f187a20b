"""From tokens to text: whole characters, no stop strings, nothing that a terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.text import TextStream
from tests.dllm_chat.session.words import IM_END, VOCABULARY, byte_ids, word


def run(tokens: list[int], *stops: str) -> tuple[list[str], TextStream]:
    stream = TextStream(VOCABULARY, stops)
    shown = []
    for token in tokens:
        shown.append(stream.push(token))
        if stream.stopped:
            break
    shown.append(stream.finish())
    return shown, stream


def test_a_character_of_several_tokens_comes_whole() -> None:
    shown, stream = run(byte_ids("né€😀"))
    assert stream.text == "né€😀" == "".join(shown)
    assert all("�" not in piece for piece in shown)


def test_bytes_that_are_no_character_become_a_replacement() -> None:
    assert run(byte_ids(b"a\xff"))[1].text == "a�"
    assert run(byte_ids(b"a\xe2\x82"))[1].text == "a�"


def test_a_stop_string_and_what_follows_is_never_shown() -> None:
    shown, stream = run([word("hello"), word("ST"), word("OP"), word(" world")], "STOP")
    assert stream.stopped and stream.text == "hello" == "".join(shown)


def test_the_beginning_of_a_stop_string_is_held_until_it_is_clear() -> None:
    stream = TextStream(VOCABULARY, ("STOP",))
    assert stream.push(word("ST")) == ""
    assert stream.push(word(" world")) == "ST world"
    assert stream.push(word("ST")) == ""
    assert stream.finish() == "ST" and stream.text == "ST worldST"


def test_a_stop_string_is_looked_for_as_text_is_shown() -> None:
    shown, stream = run(byte_ids(b"one\r\ntwo"), "\r\n", "\x07")
    assert stream.stopped and stream.text == "one" == "".join(shown)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert run(byte_ids("one two three"), "three", "tw")[1].text == "one "


def test_control_tokens_and_leading_space_show_nothing() -> None:
    assert run([IM_END, *byte_ids("\n  hi "), IM_END])[1].text == "hi "


@pytest.mark.parametrize("hostile", ["\x1b[31mred", "\x9b2J", "a\x07b", "x\u202ey", "z\u2066w"])
def test_what_a_terminal_would_obey_is_gone(hostile: str) -> None:
    text = run(byte_ids(hostile))[1].text
    assert not {"\x1b", "\x9b", "\x07", "\u202e", "\u2066"} & set(text)


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_what_was_shown_piece_by_piece_is_the_text_and_has_no_stop_string(
    text: str, stops: list[str]
) -> None:
    shown, stream = run(byte_ids(text.encode("utf-8", "ignore")), *stops)
    assert "".join(shown) == stream.text
    assert not any(stop in stream.text for stop in stops)
