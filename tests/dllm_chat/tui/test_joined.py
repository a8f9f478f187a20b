"""What the screen says in a home that joined a network."""

from __future__ import annotations

from dllm_chat.history.store import History
from dllm_chat.tui.screens.first_run import FirstRunScreen
from dllm_chat.wallet.errors import WalletLocked
from tests.dllm_chat.tui.doubles import ScriptedDoor, app_for, until
from tests.dllm_chat.tui.test_chat import is_open

SIZE = (80, 24)


def _shown(screen: FirstRunScreen) -> str:
    return " ".join(str(one.render()) for one in screen.query("Static"))


async def test_the_first_run_names_the_joined_network_and_starts_none(history: History) -> None:
    app = app_for(ScriptedDoor(), history, welcomed=False, network="devnet-6a06dfe7")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and is_open(app))
        assert isinstance(app.screen, FirstRunScreen)
        shown = _shown(app.screen)
        assert "You joined devnet-6a06dfe7" in shown
        assert "joined no network" not in shown
        assert "play money" not in shown


async def test_a_locked_wallet_is_told_with_all_of_its_hint(history: History) -> None:
    door = ScriptedDoor()
    door.open_error = WalletLocked("no chat key " + "x" * 80, hint="dllm wallet chat-key --cap 5")
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: any(True for _ in app._notifications))
        assert [one for one in app._notifications if "dllm wallet chat-key --cap 5" in one.message]
