"""`dllm-node`: make a node's folder, run it, ask how it is; a faucet, a relay."""

from __future__ import annotations

import typer

from full_node.commands import backups, examining, homes, publishing, running
from full_node.faucet.cli import faucet
from full_node.relay.cli import relay

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (
    homes.init,
    homes.key,
    homes.join,
    running.start,
    running.status,
    examining.doctor,
    publishing.bundle,
    backups.backup,
    backups.restore,
    faucet,
    relay,
):
    app.command()(command)
app.command("confirm-restored")(backups.confirm)


def run() -> None:
    """Entry point of `dllm-node`."""
    app()
