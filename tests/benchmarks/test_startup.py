"""The first-paint meter sees a painted screen, and only that."""

import sys
from pathlib import Path

import pytest

from benchmarks.startup import COLUMNS, ROWS, cells_painted, first_paint_s


def test_nothing_counts_before_the_alternate_screen() -> None:
    assert cells_painted(b"starting up" * 400) == 0


def test_escape_sequences_are_not_cells() -> None:
    assert cells_painted(b"hi\x1b[?1049h\x1b[2J\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \xe2\x94\x80") == 5


def test_a_program_that_paints_the_screen_is_timed(tmp_path: Path) -> None:
    paint = f"import sys, time; sys.stdout.write('\\x1b[?1049h' + ' ' * {ROWS * COLUMNS}); sys.stdout.flush(); input()"
    assert first_paint_s([sys.executable, "-c", paint], tmp_path) > 0


def test_a_program_that_ends_without_painting_is_named(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="ended before it painted"):
        first_paint_s([sys.executable, "-c", "print('no')"], tmp_path)
