"""A folder that was halted for another program stays halted until that program, or a person's word, comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from full_node import halting
from full_node.halting import (
    Halt,
    HaltReached,
    HaltStands,
    clear_mark,
    halt_at,
    read_mark,
    require_not_halted,
)
from full_node.home import NodeHome
from full_node.state_machine.upgrades.plan import Release

HASH = b"\xab" * 32


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return NodeHome(tmp_path)


def test_a_halted_folder_says_height_and_app_hash_and_ends_with_its_own_exit_code(home: NodeHome) -> None:
    reached = halt_at(home, 20, HASH)
    assert reached.exit_code == 10
    assert "after height 20" in reached.message
    assert HASH.hex().upper() in reached.message
    mark = read_mark(home)
    assert mark is not None
    assert (mark.height, mark.app_version, mark.app_hash) == (20, 0, HASH.hex().upper())


def test_the_same_program_does_not_go_on(home: NodeHome) -> None:
    halt_at(home, 20, HASH)
    with pytest.raises(HaltStands, match="halted after height 20"):
        require_not_halted(home, Halt())
    with pytest.raises(HaltReached):
        require_not_halted(home, Halt(height=20))
    with pytest.raises(HaltStands):
        require_not_halted(home, Halt(height=30))
    require_not_halted(home, Halt(past_halt=True))


def test_another_program_goes_on(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    halt_at(home, 20, HASH)
    monkeypatch.setattr(halting, "RELEASE", Release(1))
    require_not_halted(home, Halt())
    clear_mark(home)
    clear_mark(home)
    assert read_mark(home) is None


def test_a_folder_that_was_not_halted_just_starts(home: NodeHome) -> None:
    require_not_halted(home, Halt())
    require_not_halted(home, Halt(height=5))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"height": "x", "app_version": 0, "app_hash": ""}', b"[]"])
def test_a_mark_that_cannot_be_read_stops_the_node(home: NodeHome, content: bytes) -> None:
    (home.folder / halting.MARK).write_bytes(content)
    with pytest.raises(HaltStands, match="cannot be read"):
        require_not_halted(home, Halt())
