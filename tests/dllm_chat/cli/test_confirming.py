"""Nobody is stuck at a question."""

import pytest

from dllm_chat.cli.confirming import ask_line, confirm
from dllm_protocol.errors import Declined


def test_yes_needs_no_answer() -> None:
    assert confirm("Send it?", yes=True) is None


def test_without_a_terminal_the_answer_is_no() -> None:
    with pytest.raises(Declined, match="nobody to ask") as refused:
        confirm("Send it?", yes=False)
    assert refused.value.exit_code == 9
    assert "--yes" in refused.value.hint


def test_an_ended_input_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(Declined):
        ask_line("> ")
