"""The tree of commands: whole, helpful, and every leaf speaks JSON."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from dllm_chat.cli.app import COMMANDS, app
from tests.dllm_chat.cli.conftest import Ran

WANTED = {
    "ask",
    "wallet create", "wallet restore", "wallet list", "wallet address", "wallet balance", "wallet send",
    "wallet history", "wallet chat-key", "wallet reveal-seed", "wallet passwd",
    "session list", "session close", "provider list", "provider show",
    "validator list", "validator show", "validator stake", "validator unstake", "validator collect",
    "model list", "model show", "model found", "model pack", "model verify", "model assemble",
    "model fetch", "model seed",
    "worker on", "worker off", "worker status", "worker leave",
    "receipt list", "receipt show", "receipt verify",
    "network status", "network join", "network leave", "network bundle", "network invite",
    "light status", "light sync", "light verify", "light proxy", "light trust refresh",
    "faucet request", "devnet up", "devnet status", "devnet logs", "devnet kill", "devnet restart", "devnet down",
    "backup create", "backup show", "backup restore", "doctor", "version",
}  # fmt: skip


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    if not isinstance(node, TyperGroup):
        yield name, node
        return
    for one in node.list_commands(None):
        yield from leaves(node.get_command(None, one), f"{name} {one}".strip())


TREE = dict(leaves(get_command(app)))


def test_every_command_is_there() -> None:
    assert set(TREE) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_every_command_takes_json_and_says_what_it_does(name: str) -> None:
    options = {option for parameter in TREE[name].params for option in parameter.opts}
    assert "--json" in options
    assert len(TREE[name].help) > 20
    assert not options & {"--password", "--passphrase", "--seed-words", "--mnemonic"}


@pytest.mark.parametrize("name", sorted(WANTED))
def test_every_help_page_can_be_shown(dllm: Callable[..., Ran], name: str) -> None:
    ran = dllm(*name.split(), "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: dllm {name}")
    assert "\x1b" not in ran.out


def test_the_help_names_every_group(dllm: Callable[..., Ran]) -> None:
    out = " ".join(dllm("--help").out.split())
    assert all(entry.help in out for entry in COMMANDS.values())


@pytest.mark.parametrize("name", sorted(name for name in WANTED if " " in name))
def test_the_line_of_a_group_names_its_commands_or_says_that_there_are_more(name: str) -> None:
    group, own = name.split()[:2]
    named = COMMANDS[group].help.partition(": ")[2].rstrip(".").split(", ")
    assert own in named or named[-1] == "…"


def test_completion_knows_commands_and_options(tmp_home: Path) -> None:
    def complete(words: str, place: int) -> list[str]:
        asked = {"_DLLM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        command = [sys.executable, "-m", "dllm_chat.cli.main"]
        ran = subprocess.run(
            command, env={**os.environ, **asked}, capture_output=True, text=True, check=False
        )
        return ran.stdout.split()

    assert tmp_home.is_dir()
    assert complete("dllm wal", 1) == ["wallet"]
    assert "balance" in complete("dllm wallet ba", 2)
