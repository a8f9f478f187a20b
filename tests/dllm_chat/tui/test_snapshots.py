"""The screens as pictures, at the two sizes that people have; `pytest --snapshot-update` after a wanted change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest
from textual.pilot import Pilot

from dllm_chat.history.records import MessageState, Outcome
from dllm_chat.history.store import History
from dllm_chat.models_found import FoundModel
from dllm_chat.session.events import TookOver
from dllm_chat.tui.app import ChatApp
from dllm_protocol.errors import NetworkUnreachable
from tests.dllm_chat.tui.doubles import (
    NOW_S,
    WORKER_A,
    WORKER_B,
    ScriptedDoor,
    Step,
    answered,
    app_for,
    deltas,
    opening,
    type_and_send,
    until,
    whole,
)
from tests.dllm_chat.tui.test_chat import words
from tests.dllm_chat.tui.test_joined import LOCKED
from tests.dllm_chat.tui.test_safe_markdown import HOSTILE

Steps = Callable[[Pilot[None]], Awaitable[None]]


class SnapCompare(Protocol):
    """The plugin's fixture."""

    def __call__(
        self, app: ChatApp, *, terminal_size: tuple[int, int], run_before: Steps | None = None
    ) -> bool: ...


SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 36)], ids=["80x24", "120x36"])
QUESTION = "What is DLLM, and what does an answer cost?"
REPLY = """**DLLM** is a decentralised network for language models.

1. You *ask* in the terminal.
2. A **worker** answers, token by token.
3. `dllm wallet balance` shows what it cost.

```python
def cost(rows: int, price: int) -> int:
    return -(-price * rows // 1000)  # rounded up
```

> Nothing is believed that was not proved.
"""


@pytest.fixture
def kept(history: History) -> History:
    """A history with three conversations."""
    ages = {
        "Why is the sky blue?": 400 * 86_400,
        "Plan a week in Lisbon": 86_400,
        "What is a voucher?": 3_600,
    }
    for title, age_s in ages.items():
        history._clock = lambda then_s=NOW_S - age_s: then_s
        conversation_id = history.new_conversation(title)
        history.add_question(conversation_id, title)
        answer_id = history.begin_answer(conversation_id)
        history.save_answer(answer_id, Outcome(MessageState.COMPLETE, f"About: {title}", cost_udllm=300))
    history._clock = lambda: NOW_S
    return history


async def ready(pilot: Pilot[None]) -> None:
    """The network stands and everything is drawn."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    await until(pilot, lambda: app.chat.network.view.balance is not None)


async def ask(pilot: Pilot[None]) -> None:
    """Ask, and wait for the end of the answer."""
    await ready(pilot)
    await type_and_send(pilot, QUESTION)
    app = pilot.app
    assert isinstance(app, ChatApp)
    await until(pilot, lambda: app.chat._asking is None)
    await pilot.pause(0.1)


def keys(*pressed: str, first: Steps = ready) -> Steps:
    """Steps that end with keys."""

    async def steps(pilot: Pilot[None]) -> None:
        await first(pilot)
        await pilot.press(*pressed)
        await pilot.pause(0.1)

    return steps


@SIZES
def test_first_run(snap_compare: SnapCompare, history: History, size: tuple[int, int]) -> None:
    models = [
        FoundModel(Path("/m/llama.gguf"), "llama3.2:3b", 2_019_377_376, "Ollama"),
        FoundModel(Path("/m/qwen.gguf"), "Qwen2.5-7B-Instruct-Q4_K_M", 4_683_073_504, "LM Studio"),
    ]
    app = app_for(ScriptedDoor(), history, welcomed=False, models=models)
    assert snap_compare(app, terminal_size=size, run_before=keys())


@SIZES
def test_starting(snap_compare: SnapCompare, history: History, size: tuple[int, int]) -> None:
    door = ScriptedDoor()
    door.open_gate = asyncio.Event()
    door.progress = ["starting the embedded network: waiting for the first worker"]

    async def steps(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: door.calls == ["open"])

    assert snap_compare(app_for(door, history), terminal_size=size, run_before=steps)


@SIZES
def test_offline(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    door = ScriptedDoor()

    async def steps(pilot: Pilot[None]) -> None:
        await ready(pilot)
        door.refresh_error = NetworkUnreachable("nobody answers at 127.0.0.1:26657")
        assert isinstance(pilot.app, ChatApp)
        await pilot.app.chat.network.poll()
        await pilot.pause()

    assert snap_compare(app_for(door, kept), terminal_size=size, run_before=steps)


@SIZES
def test_locked(snap_compare: SnapCompare, history: History, size: tuple[int, int]) -> None:
    door = ScriptedDoor()
    door.open_error = LOCKED
    app = app_for(door, history)

    async def steps(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: bool(words(app, "FailureView")))

    assert snap_compare(app, terminal_size=size, run_before=steps)


@SIZES
def test_streaming(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    script: list[Step] = [*opening(), *deltas(REPLY[:220]), asyncio.Event()]
    app = app_for(ScriptedDoor(script), kept)

    async def steps(pilot: Pilot[None]) -> None:
        await ready(pilot)
        await type_and_send(pilot, QUESTION)
        await until(pilot, lambda: f"{len(script) - 4} tokens so far" in words(app, ".reply--foot"))
        await pilot.pause(0.2)

    assert snap_compare(app, terminal_size=size, run_before=steps)


@SIZES
def test_answer_with_a_code_fence(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    assert snap_compare(app_for(ScriptedDoor(whole(REPLY)), kept), terminal_size=size, run_before=ask)


@SIZES
def test_error(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    error = NetworkUnreachable(
        "no provider of guide-1 answered: local1q8f4…3k2m refused the connection",
        hint="try again in a moment, or choose another model with ctrl+o",
    )
    app = app_for(ScriptedDoor([*opening(), error]), kept)
    assert snap_compare(app, terminal_size=size, run_before=ask)


@SIZES
def test_takeover(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    script = [
        *opening(),
        *deltas(REPLY[:100]),
        TookOver(WORKER_A, WORKER_B, "connection lost"),
        *deltas(REPLY[100:]),
        answered(REPLY, providers=(WORKER_A, WORKER_B)),
    ]
    assert snap_compare(app_for(ScriptedDoor(script), kept), terminal_size=size, run_before=ask)


@SIZES
def test_contributing(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await keys("ctrl+g")(pilot)
        assert isinstance(pilot.app, ChatApp)
        chat = pilot.app.chat
        await until(pilot, lambda: chat.network.view.is_contributing)
        pilot.app.clear_notifications()
        await pilot.pause(0.1)

    assert snap_compare(app_for(ScriptedDoor(), kept), terminal_size=size, run_before=steps)


@SIZES
def test_delete_confirmation(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    app = app_for(ScriptedDoor(whole(REPLY)), kept)
    assert snap_compare(app, terminal_size=size, run_before=keys("ctrl+d", first=ask))


@SIZES
def test_search(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    app = app_for(ScriptedDoor(), kept)
    assert snap_compare(app, terminal_size=size, run_before=keys("ctrl+f", *"voucher"))


@SIZES
def test_search_before_anything_is_typed(
    snap_compare: SnapCompare, kept: History, size: tuple[int, int]
) -> None:
    assert snap_compare(app_for(ScriptedDoor(), kept), terminal_size=size, run_before=keys("ctrl+f"))


@SIZES
def test_help(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    assert snap_compare(app_for(ScriptedDoor(), kept), terminal_size=size, run_before=keys("f1"))


@SIZES
def test_open_sessions_at_the_end(snap_compare: SnapCompare, kept: History, size: tuple[int, int]) -> None:
    assert snap_compare(app_for(ScriptedDoor(), kept), terminal_size=size, run_before=keys("ctrl+q"))


@SIZES
def test_hostile_text(snap_compare: SnapCompare, history: History, size: tuple[int, int]) -> None:
    text = "\n\n".join(HOSTILE[name] for name in HOSTILE if name not in ("html", "table", "quoted list"))
    app = app_for(ScriptedDoor(whole(text)), history)
    assert snap_compare(app, terminal_size=size, run_before=ask)


@pytest.mark.parametrize("theme", ["dllm-light", "ansi-dark"])
def test_other_colours(snap_compare: SnapCompare, kept: History, theme: str) -> None:
    kept.remember("theme", theme)
    app = app_for(ScriptedDoor(whole(REPLY)), kept)
    assert snap_compare(app, terminal_size=(120, 36), run_before=ask)


def test_no_colour(snap_compare: SnapCompare, kept: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = app_for(ScriptedDoor(whole(REPLY)), kept)
    assert snap_compare(app, terminal_size=(80, 24), run_before=ask)


def test_a_large_terminal(snap_compare: SnapCompare, kept: History) -> None:
    app = app_for(ScriptedDoor(whole(REPLY)), kept)
    assert snap_compare(app, terminal_size=(200, 60), run_before=ask)
