"""The tree of commands. A group's module is imported when the group is used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from dllm_chat.cli.command import AsJson
from dllm_chat.cli.output import write_text
from dllm_chat.version import VERSION

HELP = """Ask language models on a network of strangers' machines, pay by the token, and prove the bill.

\b
  dllm ask "What is DLLM?"             ask; the embedded network starts by itself
  dllm ask - < letter.txt              ask what stands in a file
  dllm wallet balance                  what you have, proved
  dllm session close --all             settle, and get deposits back
  dllm receipt verify FILE             check a bill offline
  dllm worker on --model FILE          answer others, and earn
  dllm-chat                            the same in full screen

Every command takes --json. Exit codes: 0 ok, 2 usage, 3 network, 4 timeout, 5 refused by the chain, 6 not found,
7 wallet locked, 8 verification failed, 9 declined, 130 interrupted.
"""


class Entry(NamedTuple):
    """A command that is not imported yet."""

    module: str
    help: str


COMMANDS: Mapping[str, Entry] = {
    "ask": Entry("dllm_chat.cli.ask", "Ask a question."),
    "wallet": Entry(
        "dllm_chat.cli.wallet", "Your money: create, restore, balance, send, history, chat-key, …"
    ),
    "session": Entry("dllm_chat.cli.session", "Open sessions and their deposits: list, close."),
    "provider": Entry("dllm_chat.cli.provider", "Who serves what, at which price: list, show."),
    "validator": Entry("dllm_chat.cli.validator", "Who signs blocks: list, show, stake, unstake, collect."),
    "model": Entry("dllm_chat.cli.model", "Models: list, show, found, pack, verify, assemble, fetch, seed."),
    "worker": Entry("dllm_chat.cli.worker", "Answer others and earn: on, off, status, leave."),
    "receipt": Entry("dllm_chat.cli.receipt", "Bills that anybody can check offline: list, show, verify."),
    "network": Entry("dllm_chat.cli.network", "The network in use: status, join, bundle, invite, leave."),
    "light": Entry("dllm_chat.cli.light", "Your own check of the chain: status, sync, verify, trust, proxy."),
    "faucet": Entry("dllm_chat.cli.faucet", "Tokens of a test network: request."),
    "devnet": Entry(
        "dllm_chat.cli.devnet", "A whole test network on this machine: up, status, logs, kill, restart, down."
    ),
    "backup": Entry("dllm_chat.cli.backup", "This home in one file: create, show, restore."),
    "doctor": Entry("dllm_chat.cli.doctor", "Look at this machine and say what is missing."),
    "version": Entry("dllm_chat.cli.version_command", "Versions of everything that matters."),
}


class LazyGroup(TyperGroup):
    """Knows its commands' names and first lines, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """The command, imported; None where there is none."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        found = get_command(importlib.import_module(entry.module).app)
        found.name = cmd_name
        if not isinstance(found, TyperCommand | TyperGroup):
            raise TypeError(f"{cmd_name} is a {type(found).__name__}, not a command")
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command meant, or the nearest name as a suggestion."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {name[:40]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Names and first lines, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    help=HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(asked: bool) -> None:
    if asked:
        write_text(f"dllm {VERSION}\n")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    as_json: AsJson = False,
    version: bool = typer.Option(
        False, "--version", "-V", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Shown help comes from `HELP`."""
    if ctx.invoked_subcommand is None:
        if as_json:
            ctx.fail("A command is missing.")
        write_text(ctx.get_help() + "\n")
