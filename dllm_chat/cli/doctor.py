"""`dllm doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from dllm_chat.cli.command import command, single
from dllm_chat.cli.output import Report, table

app = single()
SICK = 11
"""Exit code where a check failed: the command itself did its job."""


@command(app, "doctor")
async def doctor(
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: look at this machine alone.")
    ] = False,
) -> Report:
    """Clock, ports, disk, permissions, versions, stores, keyring, model file, network, age of trust.

    \b
      dllm doctor
      dllm doctor --offline --json

    Starts nothing and changes nothing. Where a network was joined, its nodes and your witnesses are asked for their
    newest header, nobody else. Exit code 11 when a check failed; warnings are for you to judge.
    """
    from dllm_chat.cli.checks import run_checks
    from dllm_chat.cli.checks_network import network_checks
    from dllm_chat.paths import find_paths

    checks = run_checks()
    if not offline:
        checks += await network_checks(find_paths())
    rows = [(check.state, check.name, check.found, check.hint) for check in checks]
    healthy = all(check.state != "fail" for check in checks)
    data = {
        "healthy": healthy,
        "checks": [
            {"name": check.name, "state": check.state, "found": check.found, "hint": check.hint}
            for check in checks
        ],
    }
    return Report(data, table(("", "CHECK", "FOUND", "WHAT TO DO"), rows), 0 if healthy else SICK)
