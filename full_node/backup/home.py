"""What of a node's folder goes into a backup, and how it comes back without ever signing twice.

Keys stay out: a backup is a file that travels. What CometBFT has can only be copied while it does not run; without
that part a restored node fetches blocks and state from its peers. A restored folder is marked, and as long as the
mark stands no node runs from it: what the lost one signed after the backup is not in the backup.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.backup import BackupManifest
from dllm_protocol.errors import UsageRefused
from full_node.backup.archive import BackupRefused, pack, unpack
from full_node.consensus.cometbft.files import EngineFolder, prepare_folder
from full_node.files import sync_folder, write_private
from full_node.home import HomeRefused, NodeHome
from full_node.settings import COMETBFT, read_settings
from full_node.sqlite_files import copy_database

KIND = "node"
MARK = "restored.json"
_KEY_FILES_END = "_key.json"
_MADE_ANEW = (
    "rpc.json",
    "node.lock",
    "logs",
    "snapshots",
    "cometbft/lock",
    "cometbft/abci.sock",
    "cometbft/config/config.toml",
    "cometbft/config/addrbook.json",
)
_ANY_ROUND = (1 << 31) - 1


class NotConfirmed(UsageRefused):
    """The folder was restored, and nobody has said yet that it may run."""

    code = "E_RESTORED"


@dataclass(frozen=True, slots=True)
class Restored:
    """A folder that was just restored."""

    manifest: BackupManifest
    has_chain: bool
    """Whether blocks and state came along; else they come from peers."""


def back_up_home(home: NodeHome, target: Path) -> BackupManifest:
    """Writes a backup of a node's folder, whether a node runs from it or not.

    Raises:
        HomeRefused: it is no node's folder.
        BackupRefused: the target cannot be written.
    """
    if not home.genesis.exists():
        raise HomeRefused(f"{home.folder} is not a node's folder", hint="run `dllm-node init` first")
    on_cometbft = read_settings(home).engine == COMETBFT
    with _hold_if_stopped(home) as stopped, tempfile.TemporaryDirectory(dir=_beside(target)) as staging:
        files, left_out = _sort_out(home, with_chain=stopped or not on_cometbft)
        if home.sign_state.exists():
            # Before the database: what was signed must never be ahead of what the database can finish.
            files["sign_state"] = Path(staging) / "sign_state"
            files["sign_state"].write_bytes(home.sign_state.read_bytes())
        if "data.db" in files:
            files["data.db"] = Path(staging) / "data.db"
            copy_database(home.database, files["data.db"])
        return pack(target, KIND, files, left_out, time.time_ns() // 1_000_000)


def restore_home(source: Path, home: NodeHome) -> Restored:
    """Restores a backup into a folder that is empty or not there, and marks it.

    Raises:
        BackupRefused: the folder is not empty, or cannot be written.
        BackupDamaged: the file is not the backup that was written.
    """
    folder = home.folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupRefused(f"{folder} is not empty", hint="restore into a new folder")
    draft = folder.with_name(f".{folder.name}.restoring")
    manifest = unpack(source, KIND, draft)
    names = {entry.name for entry in manifest.files}
    prepare_if_cometbft(NodeHome(draft))
    write_private(draft / MARK, json.dumps({"made_ms": manifest.made_ms}).encode() + b"\n")
    if folder.exists():
        folder.rmdir()
    draft.rename(folder)
    sync_folder(folder.parent)
    return Restored(manifest, "data.db" in names)


def prepare_if_cometbft(home: NodeHome) -> None:
    """Makes CometBFT's folder with a new peer key, which no backup holds."""
    if read_settings(home).engine == COMETBFT:
        prepare_folder(EngineFolder(home.cometbft))


def require_confirmed(home: NodeHome) -> None:
    """Refuses to run from a restored folder until that was confirmed. Raises NotConfirmed."""
    if (home.folder / MARK).exists():
        raise NotConfirmed(
            f"{home.folder} was restored from a backup; what its validator signed after that is not known here",
            hint="see that the lost node never runs again, then `dllm-node confirm-restored --above HEIGHT` with "
            "the newest height of the network, as another node says it",
        )


def confirm_restored(home: NodeHome, above: int) -> None:
    """Lets a restored folder run; its validator signs no height up to and including `above`.

    Args:
        above: the newest height that anybody knows, plus one for the vote that may have been under way.

    Raises:
        NotConfirmed: the folder was not restored.
        HomeRefused: the record of what was signed cannot be read.
    """
    if not (home.folder / MARK).exists():
        raise NotConfirmed(f"{home.folder} was not restored: there is nothing to confirm")
    if read_settings(home).engine == COMETBFT:
        sign_state = EngineFolder(home.cometbft).sign_state
        floor = max(above, _signed_height(sign_state))
        # A round that no vote reaches: CometBFT refuses every vote of this height, and signs from the next one on.
        document = {"height": str(floor), "round": _ANY_ROUND, "step": 3}
        write_private(sign_state, json.dumps(document, indent=2).encode() + b"\n")
    (home.folder / MARK).unlink()
    sync_folder(home.folder)


def _signed_height(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["height"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise HomeRefused(f"{path} cannot be read: {error}", hint="restore another backup") from error


def _sort_out(home: NodeHome, *, with_chain: bool) -> tuple[dict[str, Path], list[str]]:
    """Files of the folder by name, and the names of those that stay out."""
    files: dict[str, Path] = {}
    left_out: list[str] = []
    for path in sorted(home.folder.rglob("*")):
        name = path.relative_to(home.folder).as_posix()
        if path.is_symlink() or not path.is_file() or path.name.endswith(("-wal", "-shm", ".new")):
            continue
        if any(name == made or name.startswith(f"{made}/") for made in _MADE_ANEW):
            continue
        is_chain = name == "data.db" or name.startswith("cometbft/data/")
        is_secret = name.endswith(_KEY_FILES_END)
        if is_secret or (is_chain and not with_chain):
            left_out.append(name)
        else:
            files[name] = path
    return files, left_out


@contextlib.contextmanager
def _hold_if_stopped(home: NodeHome) -> Iterator[bool]:
    """Keeps a node from starting meanwhile, where none runs; says whether none does."""
    descriptor = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    folder = target.absolute().parent
    if not folder.is_dir():
        raise BackupRefused(f"{folder} is no folder")
    return folder
