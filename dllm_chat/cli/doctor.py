"""`dllm doctor`."""

from __future__ import annotations

from dllm_chat.cli.command import command, single
from dllm_chat.cli.output import Report, table

app = single()


@command(app, "doctor")
def doctor() -> Report:
    """Versions, folders and their permissions, ports, clock, disk, llama.cpp, keyring, model file, network.

    \b
      dllm doctor
      dllm doctor --json

    Starts nothing and sends nothing. `healthy` is false when a check failed; warnings are for you to judge.
    """
    from dllm_chat.cli.checks import run_checks

    checks = run_checks()
    rows = [(check.state, check.name, check.found, check.hint) for check in checks]
    data = {
        "healthy": all(check.state != "fail" for check in checks),
        "checks": [
            {"name": check.name, "state": check.state, "found": check.found, "hint": check.hint}
            for check in checks
        ],
    }
    return Report(data, table(("", "CHECK", "FOUND", "WHAT TO DO"), rows))
