"""``dllm-chat``: the terminal application. Paints first; the network and everything heavy come after."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dllm_chat.version import VERSION

if TYPE_CHECKING:
    from dllm_chat.history.store import History
    from dllm_chat.models_found import FoundModel
    from dllm_chat.paths import Paths
    from dllm_chat.session.service_door import ChatDoor

CLOSE_S = 10.0
"""How long letting go of the network may take after the screen is gone."""
_HELP = """\
usage: dllm-chat [--conversation ID] [--home DIR]

Chat with a model that strangers' machines serve and your own machine verifies. Without a network joined, a whole
local one starts, with play money.

  --conversation ID   open this conversation instead of a new one; "last" is the latest
  --home DIR          keep everything under DIR instead of the usual folders (as DLLM_HOME does)
  --version           print the version and leave
  -h, --help          print this and leave

F1 inside lists the keys. For scripts there is `dllm ask`."""


def run(arguments: list[str] | None = None) -> int:
    """The console script; the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given == ["--version"]:
        sys.stdout.write(f"dllm-chat {VERSION}\n")
        return 0
    if given in (["--help"], ["-h"]):
        sys.stdout.write(f"{_HELP}\n")
        return 0
    from dllm_protocol.errors import DllmError

    try:
        return _chat(given)
    except DllmError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        sys.stderr.write(f"dllm-chat: {error.code}: {error.message}{hint}\n")
        return error.exit_code


def _options(given: list[str]) -> tuple[str | None, str | None]:
    """Home and conversation.

    Raises:
        UsageRefused: anything else was typed, or a value is missing.
    """
    from dllm_protocol.errors import UsageRefused

    values: dict[str, str] = {}
    rest = iter(given)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in ("--home", "--conversation"):
            raise UsageRefused(f"dllm-chat knows no {word!r}", hint="dllm-chat --help lists what it knows")
        value = value if equals else next(rest, "")
        if not value:
            raise UsageRefused(f"{name} needs a value", hint="dllm-chat --help says which")
        values[name] = value
    return values.get("--home"), values.get("--conversation")


def _chat(given: list[str]) -> int:
    from pathlib import Path

    from dllm_chat.history.store import History
    from dllm_chat.paths import find_paths
    from dllm_protocol.errors import UsageRefused

    home, conversation = _options(given)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageRefused("dllm-chat needs a terminal", hint='for scripts there is: dllm ask "…" --json')
    paths = find_paths(Path(home) if home else None)
    history = History(paths.chats_db)
    try:
        return _show(paths, history, _conversation_id(history, conversation))
    finally:
        history.close()


def _conversation_id(history: History, wanted: str | None) -> int | None:
    from dllm_protocol.errors import NotFound

    if wanted is None:
        return None
    latest = history.conversations(1)
    if wanted == "last" and latest:
        return latest[0].id
    if wanted.isascii() and wanted.isdigit() and history.conversation(int(wanted)) is not None:
        return int(wanted)
    raise NotFound(f"there is no conversation {wanted!r}", hint="dllm-chat lists them at its side")


def _show(paths: Paths, history: History, conversation_id: int | None) -> int:
    import asyncio
    import gc

    # Start-up makes much that stays; collecting in the middle of it only delays the first paint.
    gc.disable()
    from dllm_chat.tui.app import make_app
    from dllm_chat.tui.stderr_guard import guarded_terminal

    app = make_app(
        lambda: _make_door(paths),
        history,
        find_models=lambda: _find_models(paths),
        find_network=lambda: _find_network(paths),
        conversation_id=conversation_id,
    )

    def painted() -> None:
        gc.freeze()
        gc.enable()

    async def live() -> None:
        try:
            await app.run_async()
        finally:
            await asyncio.wait_for(app.chat.network.aclose(), CLOSE_S)

    app.call_later(painted)
    with guarded_terminal(paths.logs / "chat-native.log"):
        asyncio.run(live())
    return app.return_code or 0


def _make_door(paths: Paths) -> ChatDoor:
    """Imports what is heavy; called in a thread after the first paint."""
    # Needed with the first question; imported here, it does not delay it.
    import dllm_chat.tui.asking  # noqa: F401
    from dllm_chat.config import load_config
    from dllm_chat.paths import make_private_folder
    from dllm_chat.session.service import ChatService
    from light_node.log_file import log_to

    config = load_config(paths.config_file)
    log_to(make_private_folder(paths.logs) / "chat.log", level=config.log_level)
    return ChatService(paths, config)


def _find_network(paths: Paths) -> str:
    from dllm_chat.session.networks import network_in_use

    return network_in_use(paths)


def _find_models(paths: Paths) -> list[FoundModel]:
    """GGUF files that could be served; none where only a chat key pays, which registers no worker."""
    from dllm_chat.config import load_config
    from dllm_chat.models_found import find_models
    from dllm_chat.session.networks import network_in_use, pays_with_play_wallet
    from dllm_protocol.errors import DllmError

    try:
        wallet = load_config(paths.config_file).wallet
        serves = not network_in_use(paths) or pays_with_play_wallet(paths, wallet)
    except DllmError:
        # Opening the network says what is wrong with it.
        serves = False
    return find_models() if serves else []
