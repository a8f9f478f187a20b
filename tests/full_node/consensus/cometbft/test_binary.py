"""The engine's program is found where it should be, and another version is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from full_node.consensus.cometbft import binary
from full_node.consensus.cometbft.binary import (
    COMETBFT_VERSION,
    CometBftMissing,
    CometBftUnfit,
    find_cometbft,
    is_cometbft_here,
    require_our_line,
)


def program(path: Path, version: str, status: int = 0) -> Path:
    """A program that says this version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the program."""
    monkeypatch.delenv(binary.NAMED_BY, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    return tmp_path


def test_without_the_program_the_error_says_how_to_get_it(bare: Path) -> None:
    with pytest.raises(CometBftMissing) as refused:
        find_cometbft()
    assert "make cometbft" in refused.value.hint
    assert binary.RELEASES_URL in refused.value.hint
    assert not is_cometbft_here()


def test_it_is_found_on_path_then_beside_python_then_by_name(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = program(bare / "path" / "cometbft", COMETBFT_VERSION)
    assert find_cometbft() == on_path
    beside = program(bare / "prefix" / "bin" / "cometbft", COMETBFT_VERSION)
    assert find_cometbft() == beside
    named = program(bare / "mine", COMETBFT_VERSION)
    monkeypatch.setenv(binary.NAMED_BY, str(named))
    assert find_cometbft() == named
    assert find_cometbft(on_path) == on_path


def test_a_named_program_that_is_not_there_is_not_passed_over(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bare / "path" / "cometbft", COMETBFT_VERSION)
    monkeypatch.setenv(binary.NAMED_BY, str(bare / "gone"))
    with pytest.raises(CometBftMissing, match="gone"):
        find_cometbft()


@pytest.mark.parametrize("said", [COMETBFT_VERSION, "v0.38.22", "0.38.25+41be68ff1", "0.38.31"])
def test_our_line_is_taken(tmp_path: Path, said: str) -> None:
    assert require_our_line(program(tmp_path / "cometbft", said)) == said


@pytest.mark.parametrize("said", ["0.38.20", "0.37.18", "1.0.1", "0.39.4", "hello", ""])
def test_another_line_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(CometBftUnfit) as refused:
        require_our_line(program(tmp_path / "cometbft", said))
    assert binary.RELEASES_URL in refused.value.hint


def test_a_program_that_fails_or_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CometBftUnfit):
        require_our_line(program(tmp_path / "failing", COMETBFT_VERSION, status=3))
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"\x7fELF nothing")
    nonsense.chmod(0o755)
    with pytest.raises(CometBftUnfit, match="does not run"):
        require_our_line(nonsense)


def test_the_installed_one_is_of_our_line(cometbft: Path) -> None:
    assert require_our_line(cometbft).startswith("0.38.")
