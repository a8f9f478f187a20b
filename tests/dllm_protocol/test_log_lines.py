"""A log line stays one harmless line, whatever it quotes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.log_lines import LINE_BYTES_MAX, BadLogSetting, LogForm, log_form, log_level, log_line

HOSTILE = "a\nheight=9 level=error\r\x1b[2J\x1b]52;c;aGk=\x07\u202e\x85\u2028\udfff" + "x" * 100_000


def test_both_forms_say_the_same() -> None:
    entry = {"time": "2026-01-01T00:00:00.000Z", "level": "info", "message": "block height=5"}
    assert json.loads(log_line(LogForm.JSON, entry)) == entry
    assert log_line(LogForm.LOGFMT, entry) == (
        'time=2026-01-01T00:00:00.000Z level=info message="block height=5"'
    )


@pytest.mark.parametrize("form", LogForm)
def test_a_strangers_words_break_no_line_and_command_no_terminal(form: LogForm) -> None:
    line = log_line(form, {"level": "info", "message": HOSTILE, "more": HOSTILE})
    assert line.isascii() and line.isprintable() and len(line) <= LINE_BYTES_MAX
    assert line.count("level=info" if form is LogForm.LOGFMT else '"level"') == 1


@given(st.sampled_from(LogForm), st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(), max_size=3))
def test_any_words(form: LogForm, entry: dict[str, str]) -> None:
    line = log_line(form, entry)
    assert line.isascii() and (not line or line.isprintable())
    if form is LogForm.JSON:
        assert json.loads(line) == entry


def test_an_unknown_level_or_form_is_refused() -> None:
    assert (log_level("warning"), log_form("logfmt")) == ("WARNING", LogForm.LOGFMT)
    with pytest.raises(BadLogSetting, match="loud"):
        log_level("loud")
    with pytest.raises(BadLogSetting, match="xml"):
        log_form("xml")
