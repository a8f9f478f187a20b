from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dllm_chat import paths as paths_module
from dllm_chat.paths import (
    STALE_TEMPORARY_S,
    BadHome,
    LockBusy,
    file_lock,
    find_paths,
    make_private_folder,
    write_private,
)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_everything_lies_under_dllm_home(tmp_home: Path) -> None:
    paths = find_paths()
    for place in (
        paths.config_file,
        paths.wallets,
        paths.address_book,
        paths.receipts,
        paths.chats_db,
        paths.networks,
        paths.embedded,
        paths.light_db,
        paths.logs,
        paths.models,
    ):
        assert place.is_relative_to(tmp_home)
    assert not list(tmp_home.iterdir()), "finding paths creates nothing"


def test_an_argument_beats_the_environment(tmp_home: Path, tmp_path: Path) -> None:
    assert find_paths(tmp_path / "other").config == tmp_path / "other"


def test_without_dllm_home_the_xdg_directories_count(tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_HOME", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere/config")
    monkeypatch.setenv("HOME", "/home/person")
    paths = find_paths()
    assert paths.config == Path("/somewhere/config/dllm")
    assert paths.data == Path("/home/person/.local/share/dllm")
    assert paths.state == Path("/home/person/.local/state/dllm")
    assert paths.cache == Path("/home/person/.cache/dllm")


def test_a_home_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("DLLM_HOME", str(file))
    with pytest.raises(BadHome, match="not a folder"):
        find_paths()


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLLM_HOME", "here")
    assert find_paths().config == tmp_path / "here"


def test_folders_are_private_all_the_way(tmp_path: Path) -> None:
    old_umask = os.umask(0)
    try:
        made = make_private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(old_umask)
    assert mode_of(made) == mode_of(made.parent) == 0o700


def test_a_folder_that_others_can_read_is_tightened(tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    wide.mkdir(mode=0o755)
    wide.chmod(0o755)
    make_private_folder(wide)
    assert mode_of(wide) == 0o700


def test_written_files_are_whole_private_and_replace_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    old_umask = os.umask(0)
    try:
        write_private(path, b"first")
        write_private(path, b"second")
    finally:
        os.umask(old_umask)
    assert path.read_bytes() == b"second"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from dllm_chat.paths import write_private
path, step = Path(sys.argv[1]), sys.argv[2]
calls = [0]
def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
if step == "before sync":
    os.fsync = die
elif step == "before rename":
    Path.replace = die
else:
    import dllm_chat.paths
    dllm_chat.paths.sync_folder = die
write_private(path, b"new" * 1000)
"""


@pytest.mark.parametrize(
    ("step", "expected"),
    [("before sync", b"old"), ("before rename", b"old"), ("before folder sync", b"new" * 1000)],
)
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, step: str, expected: bytes
) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path), step], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == expected


def test_what_a_killed_writer_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old = tmp_path / ".file.0011223344556677.tmp"
    young = tmp_path / ".file.8899aabbccddeeff.tmp"
    foreign = tmp_path / ".other.0011223344556677.tmp"
    for leftover in (old, young, foreign):
        leftover.write_bytes(b"x")
    long_ago = time.time() - STALE_TEMPORARY_S - 60
    os.utime(old, (long_ago, long_ago))
    os.utime(foreign, (long_ago, long_ago))
    write_private(path, b"data")
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


def test_a_lock_keeps_another_thread_out_until_it_is_let_go(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        file_lock(lock),
        pytest.raises(LockBusy, match="held by another process"),
        file_lock(lock, timeout_s=0),
    ):
        pytest.fail("two holders of one lock")
    with file_lock(lock, timeout_s=0):
        assert mode_of(lock) == 0o600


def test_a_waiter_gets_the_lock_when_the_holder_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    order: list[str] = []
    held = threading.Event()

    def waiter() -> None:
        held.wait()
        with file_lock(lock):
            order.append("waiter")

    thread = threading.Thread(target=waiter)
    thread.start()
    with file_lock(lock):
        held.set()
        order.append("holder")
    thread.join()
    assert order == ["holder", "waiter"]


def test_the_kernel_frees_a_dead_holders_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = (
        "import sys, pathlib, dllm_chat.paths as p\n"
        f"with p.file_lock(pathlib.Path({str(lock)!r})):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockBusy), file_lock(lock, timeout_s=0):
            pytest.fail("two holders of one lock")
        holder.kill()
        holder.wait()
    with file_lock(lock, timeout_s=0):
        assert lock.exists()


def test_a_lock_or_temporary_is_never_opened_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic|Too many"), file_lock(link):
        pytest.fail("followed a link")
    assert not target.exists()
    assert paths_module.PRIVATE_FILE_MODE == 0o600
