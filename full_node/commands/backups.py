"""Keeping a node's folder: `dllm-node backup`, `restore` and `confirm-restored`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from full_node.backup.home import back_up_home, confirm_restored, restore_home
from full_node.command_line import AsJson, Home, report
from full_node.home import NodeHome


def backup(
    home: Home,
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Copy the folder into one file, also while the node runs. Keys stay out: keep them elsewhere, sealed."""

    def work() -> dict[str, Any]:
        manifest = back_up_home(NodeHome(home), file)
        return {
            "file": str(file),
            "files": [entry.name for entry in manifest.files],
            "left_out": list(manifest.left_out),
        }

    def words(data: dict[str, Any]) -> str:
        out = "".join(f"\n  not in it: {name}" for name in data["left_out"])
        return f"{len(data['files'])} files in {data['file']}{out}"

    report(work, as_json, words)


def restore(
    home: Home,
    file: Annotated[Path, typer.Argument(help="A backup.")],
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty folder. It runs once `confirm-restored` has said so."""

    def work() -> dict[str, Any]:
        restored = restore_home(file, NodeHome(home))
        return {
            "home": str(home),
            "files": [entry.name for entry in restored.manifest.files],
            "left_out": list(restored.manifest.left_out),
            "has_chain": restored.has_chain,
        }

    def words(data: dict[str, Any]) -> str:
        chain = "with blocks and state" if data["has_chain"] else "blocks and state come from its peers"
        missing = "".join(f"\n  put back or make anew: {name}" for name in data["left_out"] if "key" in name)
        return f"restored into {data['home']}, {chain}{missing}\nbefore it runs: dllm-node confirm-restored"

    report(work, as_json, words)


def confirm(
    home: Home,
    above: Annotated[
        int,
        typer.Option(help="The network's newest height plus one; nothing up to it will be signed.", min=0),
    ],
    as_json: AsJson = False,
) -> None:
    """Say that the node which was lost never runs again, so that the restored folder may sign."""

    def work() -> dict[str, Any]:
        confirm_restored(NodeHome(home), above)
        return {"home": str(home), "signs_above": above}

    report(
        work, as_json, lambda data: f"{data['home']} may run; it signs heights above {data['signs_above']}"
    )
