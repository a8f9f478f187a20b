"""`dllm-node doctor`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from full_node.command_line import AsJson, Home, door_of, report
from full_node.examining import examine
from full_node.home import HomeRefused, NodeHome

SICK = 11
"""Exit code where a look failed: the command itself did its job."""


def doctor(
    home: Home,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST:PORT that the node listens on or announces; is it free, or reachable? Repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a node's folder and its machine: versions, key, genesis, database, disk, ports, clock.

    Changes nothing. Asks the running node, and its peers for their newest block time, nobody else. Exit code 11 when
    something failed.
    """
    healthy = True

    def work() -> dict[str, Any]:
        nonlocal healthy
        if not home.is_dir():
            raise HomeRefused(f"{home} is not a node's folder", hint="run `dllm-node init` first")
        doors = [door_of(one, option="--listen") for one in listen or ()]
        found = asyncio.run(examine(NodeHome(home), [(door.host, door.port) for door in doors]))
        healthy = all(one.state != "fail" for one in found)
        return {"healthy": healthy, "checks": [one.document() for one in found]}

    def words(data: dict[str, Any]) -> str:
        lines = []
        for one in data["checks"]:
            lines.append(f"{one['state']:<4}  {one['name']}: {one['found']}")
            if one["hint"]:
                lines.append(f"      {one['hint']}")
        return "\n".join(lines)

    report(work, as_json, words)
    if not healthy:
        raise typer.Exit(SICK)
