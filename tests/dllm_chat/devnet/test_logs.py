"""Reading logs while they are written, begun anew, or not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_chat.devnet.errors import DevnetRefused
from dllm_chat.devnet.logs import LogFile, log_files
from dllm_chat.devnet.plan import COMETBFT, Folder, make_plan


def test_what_comes_is_read_by_whole_lines_and_a_new_file_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    file = LogFile("node-1", path)
    assert (file.tail(5), file.more()) == ([], [])
    path.write_text("one\ntwo\nthree\n")
    assert file.tail(2) == ["two", "three"]
    with path.open("a") as log:
        log.write("four\nfi")
    assert file.more() == ["four"]
    with path.open("a") as log:
        log.write("ve\n")
    assert file.more() == ["five"]
    path.write_text("new\n")
    assert file.more() == ["new"]
    path.unlink()
    assert file.more() == []


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_bytes(b"\xff\xfe\n")
    assert LogFile("node-1", path).tail(1) == ["\ufffd\ufffd"]


def test_parts_are_known_by_name_and_nodes_by_number(tmp_path: Path) -> None:
    folder, plan = Folder(tmp_path), make_plan(COMETBFT, 2, 1, "")
    assert {file.part for file in log_files(folder, plan, "2")} == {"node-2"}
    assert {file.part for file in log_files(folder, plan, "")} == {
        "node-1",
        "node-2",
        "worker-1",
        "faucet",
        "supervisor",
    }
    with pytest.raises(DevnetRefused) as caught:
        log_files(folder, plan, "node-3")
    assert "node-2" in caught.value.hint
