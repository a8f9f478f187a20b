"""What stays and what goes when the embedded network begins a new chain."""

from __future__ import annotations

from pathlib import Path

from dllm_chat.embedded.network import GENESIS_FILE, LocalNetwork

PARTS = (
    "node/store.db",
    "wallet/keys.json",
    "worker-1/worker.db",
    "worker-2/keys.json",
    "worker-own/keys.json",
)
FILES = ("bundle", "bundle.workers", "light.db", "light.db-wal", "clock_floor")


def fill(home: Path, *, genesis: str) -> None:
    for name in (*PARTS, *FILES):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"{genesis or 'half made'} {name}")
    (home / "logs").mkdir(exist_ok=True)
    if genesis:
        (home / GENESIS_FILE).write_text(genesis)


def test_an_older_chain_is_kept_whole_and_only_one_is(tmp_path: Path) -> None:
    for genesis in ("first", "second"):
        fill(tmp_path, genesis=genesis)
        LocalNetwork(tmp_path)._set_aside()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "old"]
        old = tmp_path / "old"
        assert (old / GENESIS_FILE).read_text() == genesis
        assert all((old / name).read_text() == f"{genesis} {name}" for name in PARTS)


def test_what_a_killed_founding_left_is_swept_and_the_older_chain_stays(tmp_path: Path) -> None:
    fill(tmp_path, genesis="first")
    LocalNetwork(tmp_path)._set_aside()
    fill(tmp_path, genesis="")
    (tmp_path / "genesis.new").write_text("unfinished")
    LocalNetwork(tmp_path)._set_aside()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "old"]
    assert (tmp_path / "old" / GENESIS_FILE).read_text() == "first"


def test_a_home_without_anything_stays_so(tmp_path: Path) -> None:
    LocalNetwork(tmp_path)._set_aside()
    assert list(tmp_path.iterdir()) == []
