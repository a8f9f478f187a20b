"""A home goes into one file without an open secret, while it is in use, and comes back whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dllm_chat.backup.archive import BackupRefused
from dllm_chat.backup.home import RESTORED, back_up, restore
from dllm_chat.history.schema import open_database
from dllm_chat.paths import Paths, find_paths, make_private_folder, write_private
from dllm_chat.session.saved import SessionStore
from dllm_protocol.backup import BackupDamaged
from light_node.trust_store import TrustStore
from local_worker.keys import create_keys
from local_worker.slice_models import MODEL_FOLDER
from local_worker.slice_service import slice_home
from tests.dllm_chat.wallet.parts import MNEMONIC, PASSWORD, Typed, manager_in

OPEN_SECRET = "5ec2e7" * 8
CHAIN = "test-00000000"


@pytest.fixture
def full(tmp_path: Path) -> Paths:
    """A home with something of everything."""
    paths = find_paths(tmp_path / "home")
    manager_in(paths.data).restore("main", MNEMONIC, Typed(PASSWORD))
    write_private(paths.config_file, b'model = "guide"\n')
    write_private(paths.data / "networks" / CHAIN / "bundle", b"bundle")
    write_private(paths.data / "networks" / CHAIN / "wallet" / "play_wallet.json", OPEN_SECRET.encode())
    write_private(paths.data / "wallets" / "main" / "chat_key-0.wrap.json", OPEN_SECRET.encode())
    write_private(paths.data / "publisher_key", OPEN_SECRET.encode())
    write_private(paths.receipts / "a.receipt", b"receipt")
    write_private(paths.data / "embedded" / "node" / "data.db", b"play money")
    write_private(paths.data / "sessions" / "locks" / "x", b"")
    TrustStore(paths.data / "networks" / CHAIN / "light.db", CHAIN).close()
    SessionStore(paths.data / "sessions").close()
    worker = make_private_folder(paths.data / "worker")
    create_keys(worker)
    create_keys(slice_home(worker, 2))
    write_private(slice_home(worker, 2) / MODEL_FOLDER / "chunk.gguf", b"many gigabytes")
    write_private(worker / MODEL_FOLDER / "package" / "manifest", b"many gigabytes")
    return paths


def _elsewhere(tmp_path: Path) -> Paths:
    return find_paths(tmp_path / "elsewhere")


def test_everything_that_matters_comes_back(tmp_path: Path, full: Paths) -> None:
    history = open_database(full.chats_db)
    history.execute("INSERT INTO settings VALUES ('kept', 'yes')")
    # A program that is in the middle of a change does not get into the way, nor does its change get in.
    history.execute("BEGIN IMMEDIATE")
    history.execute("INSERT INTO settings VALUES ('half', 'done')")
    manifest = back_up(full, tmp_path / "b")
    history.execute("COMMIT")
    history.close()
    new = _elsewhere(tmp_path)
    restored = restore(new, tmp_path / "b")
    assert restored.manifest == manifest
    opened = manager_in(new.data).unlock("main", Typed(PASSWORD))
    assert opened.name == "main"
    with pytest.raises(Exception, match="does not open"):
        manager_in(new.data).unlock("main", Typed("another password altogether"))
    assert new.config_file.read_bytes() == b'model = "guide"\n'
    assert (new.receipts / "a.receipt").read_bytes() == b"receipt"
    assert (new.networks / CHAIN / "bundle").read_bytes() == b"bundle"
    again = open_database(new.chats_db)
    assert again.execute("SELECT name FROM settings").fetchall() == [("kept",)]
    again.close()
    TrustStore(new.networks / CHAIN / "light.db", CHAIN).close()
    SessionStore(new.data / "sessions").close()
    assert (new.data / "worker" / RESTORED).exists()
    assert restored.has_worker


def test_no_open_secret_and_nothing_that_makes_itself_anew_is_in_it(tmp_path: Path, full: Paths) -> None:
    manifest = back_up(full, tmp_path / "b")
    raw = (tmp_path / "b").read_bytes()
    keys = (full.data / "worker" / "keys.json").read_text()
    more_keys = (full.data / "worker" / "slices" / "2" / "keys.json").read_text()
    for secret in (
        OPEN_SECRET.encode(),
        keys.encode(),
        more_keys.encode(),
        MNEMONIC.encode(),
        PASSWORD.encode(),
    ):
        assert secret not in raw
    assert set(manifest.left_out) == {
        "data/worker/keys.json",
        "data/worker/slices/2/keys.json",
        "data/publisher_key",
        f"data/networks/{CHAIN}/wallet/play_wallet.json",
        "data/wallets/main/chat_key-0.wrap.json",
    }
    names = {one.name for one in manifest.files}
    assert "data/wallets/main/keystore.json" in names
    assert not [name for name in names if "model" in name]
    assert not [name for name in names if "embedded" in name or "locks" in name or name.endswith("-wal")]
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_a_restored_home_is_private(tmp_path: Path, full: Paths) -> None:
    back_up(full, tmp_path / "b")
    new = _elsewhere(tmp_path)
    restore(new, tmp_path / "b")
    for folder, _, files in os.walk(new.config):
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700, folder
        assert all(stat.S_IMODE((Path(folder) / name).stat().st_mode) == 0o600 for name in files)


def test_a_home_with_anything_in_it_is_left_alone(tmp_path: Path, full: Paths) -> None:
    back_up(full, tmp_path / "b")
    before = sorted(path.name for path in full.data.rglob("*"))
    with pytest.raises(BackupRefused, match="not empty"):
        restore(full, tmp_path / "b")
    assert sorted(path.name for path in full.data.rglob("*")) == before
    new = _elsewhere(tmp_path)
    write_private(new.config_file, b"x = 1\n")  # somebody's own
    with pytest.raises(BackupRefused, match="there already"):
        restore(new, tmp_path / "b")
    assert not new.data.exists()


def test_a_damaged_backup_restores_nothing_and_the_next_try_works(tmp_path: Path, full: Paths) -> None:
    back_up(full, tmp_path / "b")
    good = (tmp_path / "b").read_bytes()
    (tmp_path / "bad").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    new = _elsewhere(tmp_path)
    with pytest.raises(BackupDamaged, match="is damaged"):
        restore(new, tmp_path / "bad")
    assert not new.data.exists()
    assert not new.config_file.exists()
    restore(new, tmp_path / "b")
    assert [one.name for one in new.config.iterdir() if one.name.startswith(".")] == []


def test_a_restore_that_died_half_way_is_done_again(tmp_path: Path, full: Paths) -> None:
    back_up(full, tmp_path / "b")
    new = _elsewhere(tmp_path)
    write_private(new.data.with_name(".data.restoring") / "data" / "wallets" / "x", b"half")
    write_private(new.config_file, full.config_file.read_bytes())
    restore(new, tmp_path / "b")
    assert not (new.wallets / "x").exists()
    assert (new.wallets / "main" / "keystore.json").exists()


def test_a_backup_replaces_no_file_and_needs_a_folder(tmp_path: Path, full: Paths) -> None:
    (tmp_path / "b").write_text("precious")
    with pytest.raises(BackupRefused, match="there already"):
        back_up(full, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "precious"
    with pytest.raises(BackupRefused, match="no folder"):
        back_up(full, tmp_path / "nowhere" / "b")
    with pytest.raises(BackupRefused, match="holds nothing"):
        back_up(_elsewhere(tmp_path), tmp_path / "c")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "home"]


def test_a_database_that_is_none_stops_the_backup(tmp_path: Path, full: Paths) -> None:
    write_private(full.data / "sessions" / "sessions.db", b"not a database" * 1000)
    with pytest.raises(BackupRefused, match="cannot be copied"):
        back_up(full, tmp_path / "b")
    assert not (tmp_path / "b").exists()
