"""What is written is harmless, aligned, and one object."""

import pytest

from dllm_chat.cli.output import Failure, Report, alternate_screen, fields, table, write_failure, write_report


def test_columns_are_aligned_and_cells_are_one_harmless_line() -> None:
    shown = table(("A", "B"), [("long\nname", "x\x1b[2J"), ("y", "")])
    assert shown == "A          B\nlong name  x[2J\ny"


def test_fields_show_lists_and_booleans_for_people() -> None:
    shown = fields({"a_b": True, "layers": [0, 4], "more": ["x", "y"], "prices": {"kept": 2}})
    assert shown == "a b     yes\nlayers  0-4\nmore    x\n        y\nprices  kept 2"


def test_text_loses_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    write_report(Report({}, "a\x1b]52;c;eA==\x07b\u202e"), as_json=False)
    write_failure(Failure("E_X", 1, "m\x1b[H"), as_json=False)
    written = capsys.readouterr()
    assert (written.out, written.err) == ("a]52;c;eA==b\n", "error: m[H\n")


def test_the_second_screen_is_left_and_emptied_even_on_failure(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with alternate_screen():
            raise KeyError
    except KeyError:
        pass
    err = capsys.readouterr().err
    assert err.startswith("\x1b[?1049h")
    assert err.endswith("\x1b[2J\x1b[3J\x1b[H\x1b[?1049l")
