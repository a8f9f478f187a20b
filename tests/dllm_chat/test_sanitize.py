"""Text from strangers loses what a terminal obeys and keeps what a person reads."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.sanitize import clean, clean_line


@given(st.text())
def test_nothing_that_a_terminal_obeys_or_that_reorders_is_left(text: str) -> None:
    for character in clean(text):
        assert character in "\n\t" or unicodedata.category(character) != "Cc"
        assert unicodedata.bidirectional(character) not in {
            "LRE",
            "RLE",
            "PDF",
            "LRO",
            "RLO",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Zl", "Zp")) | st.sampled_from("\n\t")))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text(), st.integers(1, 50))
def test_a_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = clean_line(text, limit)
    assert len(line) <= limit
    assert "\n" not in line and "\t" not in line


def test_letters_of_right_to_left_scripts_and_joiners_of_emoji_stay() -> None:
    assert clean("שלום 👩\u200d💻 سلام") == "שלום 👩\u200d💻 سلام"
