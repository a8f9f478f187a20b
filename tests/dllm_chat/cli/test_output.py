"""What is written is harmless, aligned, and one object."""

import pytest

from dllm_chat.cli.output import (
    Failure,
    Report,
    alternate_screen,
    fields,
    size_text,
    table,
    write_failure,
    write_report,
)


def test_columns_are_aligned_and_cells_are_one_harmless_line() -> None:
    shown = table(("A", "B"), [("long\nname", "x\x1b[2J"), ("y", "")])
    assert shown == "A          B\nlong name  x[2J\ny"


def test_fields_show_lists_and_booleans_for_people() -> None:
    shown = fields({"a_b": True, "layers": [0, 4], "more": ["x", "y"], "prices": {"kept": 2}})
    assert shown == "a b     yes\nlayers  0:4\nmore    x\n        y\nprices  kept 2"


def test_units_are_shown_and_names_lose_them() -> None:
    prices = {"prompt": 200, "kept": 2000}
    data = {"cap_udllm": 5_000_000, "size_bytes": 2_376_644, "reserve_prices_udllm_per_1000": prices}
    assert fields(data).splitlines() == [
        "cap             5 DLLM",
        "size            2.4 MB",
        "reserve prices  prompt 200, kept 2000 udllm for 1,000 tokens",
    ]
    assert fields({"fee_udllm": 25, "fetched_bytes": 0}) == "fee      0.000025 DLLM\nfetched  0 bytes"


def test_what_is_empty_takes_no_line() -> None:
    assert fields({"note": "", "transactions": [], "legs": (), "acks": 0, "closed": False}) == (
        "acks    0\nclosed  no"
    )


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (2_376_644, "2.4 MB"),
        (1_500_000_000, "1.5 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_a_size_is_shown_in_the_unit_that_fits(size_bytes: int, shown: str) -> None:
    assert size_text(size_bytes) == shown


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
