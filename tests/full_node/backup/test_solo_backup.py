"""A solo node's folder is backed up while it runs, and comes back only where somebody answers for it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from dllm_protocol.backup import BackupDamaged
from full_node.backup.archive import BackupRefused
from full_node.backup.home import (
    NotConfirmed,
    back_up_home,
    confirm_restored,
    require_confirmed,
    restore_home,
)
from full_node.home import HomeRefused, NodeHome
from full_node.state.store import Store
from tests.full_node.processes import NodeProcess, Sender, call, dllm_node, init_with, send_and_wait


@pytest.fixture
def at_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _start(at_the_end: ExitStack, home: Path) -> NodeProcess:
    node = NodeProcess.start(home)
    at_the_end.callback(node.end)
    return node


async def test_a_running_node_is_backed_up_and_its_chain_goes_on_elsewhere(
    tmp_path: Path, at_the_end: ExitStack
) -> None:
    home, copy, file = tmp_path / "node", tmp_path / "copy", tmp_path / "node.backup"
    sender, recipient = Sender.numbered(5), Sender.numbered(6)
    init_with(home, [sender])
    node = _start(at_the_end, home)
    async with aiohttp.ClientSession() as http:
        await send_and_wait(http, node.url, sender.transfer(recipient.address, 7))
        made = dllm_node("backup", "--home", home, file, "--json")
        assert made.returncode == 0, made.stderr
        # It was never in the way.
        await send_and_wait(http, node.url, sender.transfer(recipient.address, 8))
    assert node.stop() == 0
    data = json.loads(made.stdout)["data"]
    assert "consensus_key.json" in data["left_out"]
    assert {"data.db", "genesis.json", "sign_state"} <= set(data["files"])
    secret = json.loads((home / "consensus_key.json").read_text())["priv_key"]["value"]
    assert secret.encode() not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    restored = dllm_node("restore", "--home", copy, file)
    assert restored.returncode == 0, restored.stderr
    assert "consensus_key.json" in restored.stdout
    (copy / "consensus_key.json").write_bytes((home / "consensus_key.json").read_bytes())
    (copy / "consensus_key.json").chmod(0o600)
    refused = dllm_node("start", "--home", copy)
    assert (refused.returncode, "was restored from a backup" in refused.stderr) == (2, True)
    assert dllm_node("confirm-restored", "--home", copy, "--above", "0").returncode == 0
    again = _start(at_the_end, copy)
    async with aiohttp.ClientSession() as http:
        assert again.chain_id == node.chain_id
        sender.sequence = 1
        await send_and_wait(http, again.url, sender.transfer(recipient.address, 9))
        assert int((await call(http, again.url, "status"))["sync_info"]["latest_block_height"]) > 2
    assert again.stop() == 0


def _home(folder: Path) -> NodeHome:
    init_with(folder, [])
    home = NodeHome(folder)
    Store(home.database).close()
    return home


def test_a_restored_folder_is_private_and_marked_until_it_is_confirmed(tmp_path: Path) -> None:
    home = _home(tmp_path / "node")
    back_up_home(home, tmp_path / "b")
    place = NodeHome(tmp_path / "new" / "node")
    place.folder.parent.mkdir()
    assert restore_home(tmp_path / "b", place).has_chain
    for folder, _, files in os.walk(place.folder):
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert all(stat.S_IMODE((Path(folder) / name).stat().st_mode) == 0o600 for name in files)
    with pytest.raises(NotConfirmed, match="was restored"):
        require_confirmed(place)
    confirm_restored(place, 0)
    require_confirmed(place)
    with pytest.raises(NotConfirmed, match="nothing to confirm"):
        confirm_restored(place, 0)


def test_a_folder_with_anything_in_it_is_not_restored_into(tmp_path: Path) -> None:
    home = _home(tmp_path / "node")
    back_up_home(home, tmp_path / "b")
    before = sorted(one.name for one in home.folder.iterdir())
    with pytest.raises(BackupRefused, match="not empty"):
        restore_home(tmp_path / "b", home)
    assert sorted(one.name for one in home.folder.iterdir()) == before
    (tmp_path / "empty").mkdir()
    restore_home(tmp_path / "b", NodeHome(tmp_path / "empty"))
    assert (tmp_path / "empty" / "genesis.json").exists()


def test_a_damaged_backup_leaves_no_folder_and_a_second_try_works(tmp_path: Path) -> None:
    home = _home(tmp_path / "node")
    back_up_home(home, tmp_path / "b")
    good = (tmp_path / "b").read_bytes()
    (tmp_path / "bad").write_bytes(good[:-10])
    place = NodeHome(tmp_path / "new")
    with pytest.raises(BackupDamaged):
        restore_home(tmp_path / "bad", place)
    assert not place.folder.exists()
    restore_home(tmp_path / "b", place)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_backup_never_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    home = _home(tmp_path / "node")
    (tmp_path / "b").write_text("precious")
    with pytest.raises(BackupRefused, match="there already"):
        back_up_home(home, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "precious"
    with pytest.raises(BackupRefused, match="no folder"):
        back_up_home(home, tmp_path / "nowhere" / "b")
    with pytest.raises(HomeRefused, match="not a node's folder"):
        back_up_home(NodeHome(tmp_path), tmp_path / "c")
    back_up_home(home, tmp_path / "c")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "c", "node"]
