"""`dllm backup create|show|restore`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_chat.cli.command import command, group
from dllm_chat.cli.output import Report, fields
from dllm_protocol.backup import BackupManifest

app = group(
    """All that this home holds in one file, and back. Wallets stay sealed under their passwords.

    \b
      dllm backup create dllm.backup
      dllm backup show dllm.backup
      DLLM_HOME=new dllm backup restore dllm.backup
    """
)
File = Annotated[Path, typer.Argument(help="The backup's file.")]


@command(app, "create")
def create(file: File) -> Report:
    """Write a backup; programs may go on meanwhile. Keys that lie open are not in it."""
    from dllm_chat.backup.home import back_up
    from dllm_chat.paths import find_paths

    manifest = back_up(find_paths(), file)
    return Report({"file": str(file), **_data(manifest)}, f"{file}\n{_text(manifest)}")


@command(app, "show")
def show(file: File) -> Report:
    """Say what a backup holds, without restoring it."""
    from dllm_chat.backup.archive import look
    from dllm_chat.backup.home import KIND

    manifest = look(file, KIND)
    names = "\n".join(f"  {one.name}  {one.size}" for one in manifest.files)
    return Report({"file": str(file), **_data(manifest)}, f"{_text(manifest)}\n{names}")


@command(app, "restore")
def restore(file: File) -> Report:
    """Restore a backup into a home that holds nothing yet."""
    from dllm_chat.backup.home import restore as restore_into
    from dllm_chat.paths import find_paths

    paths = find_paths()
    restored = restore_into(paths, file)
    words = [f"restored into {paths.data}", _text(restored.manifest)]
    words.append("sessions that were open: dllm session close --all settles them and brings deposits back")
    if restored.has_worker:
        words.append("the worker serves no session from before; put its keys.json back first")
    data = {"home": str(paths.data), "has_worker": restored.has_worker, **_data(restored.manifest)}
    return Report(data, "\n".join(words))


def _data(manifest: BackupManifest) -> dict[str, Any]:
    return {
        "made_ms": manifest.made_ms,
        "program": manifest.program,
        "files": [one.name for one in manifest.files],
        "bytes": sum(one.size for one in manifest.files),
        "left_out": list(manifest.left_out),
    }


def _text(manifest: BackupManifest) -> str:
    made = datetime.fromtimestamp(manifest.made_ms / 1000, UTC)
    return fields(
        {
            "made": f"{made:%Y-%m-%d %H:%M:%S} UTC by dllm {manifest.program}",
            "files": f"{len(manifest.files)}, {sum(one.size for one in manifest.files)} bytes",
            "not in it": list(manifest.left_out) or "nothing",
        }
    )
