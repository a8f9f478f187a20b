"""The console script: what it answers without a screen, and what it must not import before the first paint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dllm_chat.history.store import History
from dllm_chat.tui import main
from dllm_chat.version import VERSION
from dllm_protocol.errors import NotFound

HEAVY = (
    "aiohttp",
    "bip_utils",
    "nacl",
    "cryptography",
    "websockets",
    "light_node.client",
    "dllm_chat.session",
)


def test_version_and_help_need_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"dllm-chat {VERSION}\n"
    assert main.run(["--help"]) == 0
    assert "--conversation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--frobnicate"], 2, "--frobnicate"),
        (["--home"], 2, "--home needs a value"),
        ([], 2, "needs a terminal"),
    ],
)
def test_refusals_name_what_is_wrong(
    arguments: list[str],
    status: int,
    says: str,
    tmp_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(arguments) == status
    assert says in capsys.readouterr().err


def test_conversations_are_chosen_by_id_or_as_the_last(tmp_path: Path) -> None:
    history = History(tmp_path / "chats.db", clock=lambda: 1)
    first, second = history.new_conversation("a"), history.new_conversation("b")
    assert main._conversation_id(history, None) is None
    assert main._conversation_id(history, "last") == second
    assert main._conversation_id(history, str(first)) == first
    for unknown in ("99", "x", "-1"):
        with pytest.raises(NotFound):
            main._conversation_id(history, unknown)


def test_nothing_heavy_is_imported_before_the_first_paint() -> None:
    """Everything that `_show` imports before it draws, in a process of its own."""
    program = (
        "import sys, dllm_chat.tui.main, dllm_chat.history.store, dllm_chat.paths\n"
        "import dllm_chat.tui.app, dllm_chat.tui.stderr_guard\n"
        f"print([name for name in sys.modules if name.startswith({HEAVY!r})])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
