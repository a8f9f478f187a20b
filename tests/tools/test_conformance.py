"""`python -m tools.conformance`: a line a family, and an exit status that tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.conformance.__main__ import ROOT, marked_files

HEAD = "import pytest\n"
PASSES = '@pytest.mark.conformance("one")\n@pytest.mark.parametrize("n", range(3))\ndef test_a(n): pass\n'
FAILS = '@pytest.mark.conformance("two")\n@pytest.mark.parametrize("n", range(2))\ndef test_b(n): assert n\n'
ABSENT = '@pytest.mark.conformance("three")\ndef test_c(): pytest.skip("needs what is not here")\n'


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """The command on one file of tests."""
    (folder / "test_it.py").write_text(HEAD + "".join(tests))
    command = [sys.executable, "-m", "tools.conformance", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_counts_a_line_a_family_and_says_what_is_absent(tmp_path: Path) -> None:
    done = run(tmp_path, PASSES, ABSENT)
    assert done.stdout.splitlines() == ["one 3/3", "three 0/1 absent: needs what is not here"]
    assert done.returncode == 0, done.stderr


def test_fails_when_one_fails_and_names_it(tmp_path: Path) -> None:
    done = run(tmp_path, PASSES, FAILS)
    lines = done.stdout.splitlines()
    assert lines[0] == "one 3/3"
    assert lines[1].startswith("two 1/2 FAILED: ")
    assert lines[1].endswith("::test_b[0]")
    assert done.returncode == 1


def test_a_file_that_cannot_be_read_fails(tmp_path: Path) -> None:
    assert run(tmp_path, PASSES, "import no_such_module_anywhere\n").returncode == 1


def test_nothing_to_count_fails(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_unmarked(): pass\n").returncode == 1


@pytest.mark.parametrize("family", ["tendermint-rs-single-step", "cometbft-go-tests", "cometbft-light"])
def test_the_project_s_families_are_found(family: str) -> None:
    assert any(f'"{family}"' in path.read_text("utf-8") for path in marked_files(ROOT / "tests"))
