"""What the screen says in a home that joined a network."""

from __future__ import annotations

from dllm_chat.history.store import History
from dllm_chat.tui.screens.first_run import FirstRunScreen
from dllm_chat.tui.widgets.failure import FailureView
from dllm_protocol.errors import WalletLocked
from tests.dllm_chat.tui.doubles import ScriptedDoor, app_for, type_and_send, until, whole
from tests.dllm_chat.tui.test_chat import is_open, words

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


LOCKED = WalletLocked(
    "asking on this network needs a wallet: the wallet 'mine' has no chat key for account 0",
    hint="let a capped key pay: dllm wallet chat-key --cap 5; or ask with dllm ask --password-file FILE",
)


async def test_a_locked_wallet_is_told_with_all_of_its_hint_and_stays(history: History) -> None:
    door = ScriptedDoor()
    door.open_error = LOCKED
    conversation_id = history.new_conversation("Earlier")
    history.add_question(conversation_id, "x")
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        shown = app.chat.query_one(FailureView)
        await until(pilot, lambda: shown.display)
        for part in (LOCKED.code, LOCKED.message, LOCKED.hint):
            assert part in str(shown.content)
        assert shown.size.height == 4  # whole, in lines of this terminal
        assert not list(app._notifications)  # those go away
        await app.chat._open_conversation(conversation_id)
        await pilot.pause()
        assert shown.display


async def test_a_locked_wallet_is_not_called_offline(history: History) -> None:
    door = ScriptedDoor()
    door.open_error = LOCKED
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.chat.query_one(FailureView).display)
        assert words(app, "#facts") == "✗ locked"
        assert words(app, "#doing") == "✗ E_LOCKED · your next question tries again"


async def test_once_a_key_can_pay_the_question_goes_out_and_the_failure_goes_away(history: History) -> None:
    door = ScriptedDoor(whole("hi"))
    door.open_error = LOCKED
    app = app_for(door, history)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.chat.query_one(FailureView).display)
        door.open_error = None
        await type_and_send(pilot, "again")
        await until(pilot, lambda: is_open(app) and bool(door.asked))
        assert not app.chat.query_one(FailureView).display
