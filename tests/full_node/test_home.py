"""A node's folder: its genesis file and its one holder."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from dllm_protocol.genesis import chain_id_of
from full_node.home import (
    HomeRefused,
    NodeHome,
    NodeNotRunning,
    hold,
    is_held,
    read_genesis,
    running_node,
    write_genesis,
)
from tests.full_node.doubles import make_genesis

GENESIS = make_genesis(b"k" * 32)


def test_a_genesis_file_reads_back_as_json_and_as_bare_bytes(tmp_path: Path) -> None:
    home = NodeHome(tmp_path)
    write_genesis(home, GENESIS)
    assert read_genesis(home.genesis) == GENESIS
    (tmp_path / "bare").write_bytes(GENESIS.encode())
    assert read_genesis(tmp_path / "bare") == GENESIS


def test_wrong_genesis_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    with pytest.raises(HomeRefused, match="cannot be read"):
        read_genesis(path)
    record = base64.b64encode(GENESIS.encode()).decode()
    for content, words in (
        ("{", "not a genesis file"),
        (json.dumps({"chain_id": "x", "genesis": "?"}), "not a genesis file"),
        (
            json.dumps({"chain_id": "x", "genesis": record}),
            f"says chain 'x', its record is '{chain_id_of(GENESIS)}'",
        ),
    ):
        path.write_text(content)
        with pytest.raises(HomeRefused, match=words):
            read_genesis(path)


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    home = NodeHome(tmp_path)
    assert not is_held(home)
    held = hold(home)
    assert is_held(home)
    with pytest.raises(HomeRefused, match="another node runs"):
        hold(home)
    with pytest.raises(NodeNotRunning, match="does not listen yet"):
        running_node(home)
    home.rpc.write_text('{"address": "127.0.0.1:1"}')
    assert running_node(home) == {"address": "127.0.0.1:1"}
    os.close(held)
    assert not is_held(home)
    with pytest.raises(NodeNotRunning, match="no node runs"):
        running_node(home)
