"""A door that does what a script says, and what the screens' tests are built from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from dllm_chat.history.store import History
from dllm_chat.models_found import FoundModel
from dllm_chat.session.events import (
    Answer,
    Answered,
    AskEvent,
    AskOptions,
    Balance,
    Progress,
    ProviderShare,
    Quote,
    QuotedStage,
    QuoteReady,
    Routed,
    TextDelta,
    WorkerStatus,
)
from dllm_chat.tui.app import ChatApp, make_app
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.errors import DllmError
from dllm_protocol.pricing import RowPrices
from light_node.client import Freshness, TrustStatus

NOW_S = 1_763_700_000  # 2025-11-21 04:40 UTC
WORKER_A = ProviderShare("local1q8f4m2xk0w7v5s3d9h6jcn4p7r2t5y8z3k2m", "local1owner0a", 0, 6, 500_000)
WORKER_B = ProviderShare("local1zt6y2cp9e4u8a0l5g3e7d0f2k6m9q4w8n7x5", "local1owner0b", 0, 6, 500_000)
PRICES = RowPrices(1000, 2000, 2000, 1000)
QUOTE = Quote("guide-1", (QuotedStage(WORKER_A, WORKER_B, PRICES),), 14, 512, 526, 1038, 500_000, 400)
BALANCE = Balance("local1me", 999_498_600, 500_000, 0, 142, play_money=True)
OFF = WorkerStatus(False, "off", "", "", 0, 0.0, 0, "")
SERVING = WorkerStatus(True, "serving", "guide-1", "local1mine", 1, 31.5, 12_340, "")
FRESH = Freshness(TrustStatus.VERIFIED, 142, b"\xab" * 32, 0, 2, 86_000, "")

Step = AskEvent | DllmError | asyncio.Event


def answered(text: str, **changes: object) -> Answered:
    """The end of an answer."""
    answer = Answer(
        text,
        "guide-1",
        "LOCAL",
        "dllm-local-7f3a",
        (WORKER_A,),
        14,
        143,
        300,
        400,
        Path("/receipts/7f3a19c2-0003.receipt"),
        142,
        "AB" * 32,
        "stop",
    )
    return Answered(replace(answer, **changes))  # type: ignore[arg-type]  # fields by name


def opening() -> list[Step]:
    """What comes before the first word."""
    return [Progress("choosing a provider"), QuoteReady(QUOTE), Routed("ab" * 32, (WORKER_A,))]


def deltas(text: str, size: int = 7) -> list[Step]:
    """A text in pieces."""
    return [TextDelta(text[at : at + size]) for at in range(0, len(text), size)]


def whole(text: str) -> list[Step]:
    """An answer without incidents."""
    return [*opening(), *deltas(text), answered(text)]


class ScriptedDoor:
    """`ChatDoor` by script: each question takes the next list of steps; an `asyncio.Event` waits there."""

    def __init__(self, *scripts: list[Step], balance: Balance = BALANCE) -> None:
        self.scripts = list(scripts)
        self.asked: list[tuple[tuple[ChatMessage, ...], AskOptions]] = []
        self.calls: list[str] = []
        self.progress: list[str] = ["starting the node"]
        self.open_gate: asyncio.Event | None = None
        self.open_error: DllmError | None = None
        self.refresh_error: DllmError | None = None
        self.worker = OFF
        self.worker_files: list[Path | None] = []
        self.model_names = ["guide-1", "mistral-7b@stable"]
        self._balance = balance
        self._fresh = FRESH
        self._open = False
        self._stopped = asyncio.Event()

    async def open(self, on_progress: Callable[[str], None]) -> None:
        self.calls.append("open")
        for line in self.progress:
            on_progress(line)
        if self.open_gate is not None:
            await self.open_gate.wait()
        if self.open_error is not None:
            raise self.open_error
        self._open = True

    @property
    def badge(self) -> str:
        return "LOCAL" if self._open else ""

    @property
    def chain_id(self) -> str:
        return "dllm-local-7f3a" if self._open else ""

    def freshness(self) -> Freshness:
        if self.refresh_error is not None:
            return replace(self._fresh, state=TrustStatus.OFFLINE, problem=self.refresh_error.message)
        return self._fresh

    async def refresh(self) -> Freshness:
        if self.refresh_error is not None:
            raise self.refresh_error
        return self._fresh

    async def default_model(self) -> str:
        return self.model_names[0]

    async def models(self) -> list[str]:
        return self.model_names

    async def balance(self) -> Balance:
        return self._balance

    async def ask(self, messages: Sequence[ChatMessage], options: AskOptions) -> AsyncIterator[AskEvent]:
        self.asked.append((tuple(messages), options))
        self._stopped.clear()
        said = ""
        for step in self.scripts.pop(0):
            if isinstance(step, DllmError):
                raise step
            if isinstance(step, asyncio.Event):
                await self._wait(step)
                continue
            if self._stopped.is_set():
                yield answered(said, finish_reason="stopped", completion_tokens=3)
                return
            if isinstance(step, TextDelta):
                said += step.text
            yield step
        if self._stopped.is_set():
            yield answered(said, finish_reason="stopped", completion_tokens=3)

    async def _wait(self, gate: asyncio.Event) -> None:
        waits = [asyncio.create_task(gate.wait()), asyncio.create_task(self._stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def stop(self) -> None:
        self.calls.append("stop")
        self._stopped.set()

    async def worker_on(self, model_file: Path | None = None) -> None:
        self.calls.append("worker_on")
        self.worker_files.append(model_file)
        self.worker = SERVING

    async def worker_off(self) -> None:
        self.calls.append("worker_off")
        self.worker = OFF

    async def worker_status(self) -> WorkerStatus:
        return self.worker

    async def close_sessions(self) -> None:
        self.calls.append("close_sessions")
        self._balance = replace(self._balance, spendable_udllm=999_998_000, in_sessions_udllm=0)

    async def aclose(self) -> None:
        self.calls.append("aclose")


def app_for(
    door: ScriptedDoor,
    history: History,
    *,
    welcomed: bool = True,
    models: Sequence[FoundModel] = (),
    network: str = "",
    conversation_id: int | None = None,
) -> ChatApp:
    """The application over a scripted door."""
    if welcomed:
        history.remember("welcomed", "1")
    return make_app(
        lambda: door,
        history,
        find_models=lambda: models,
        find_network=lambda: network,
        clock=lambda: NOW_S,
        conversation_id=conversation_id,
    )


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Wait for a condition, bounded in turns rather than in time."""
    for _ in range(6_000):
        if holds():
            await pilot.pause()
            return
        await pilot.pause(0.01)
    raise AssertionError("the condition never held")


async def type_and_send(pilot: Pilot[None], text: str) -> None:
    """As a person does, but at once."""
    from dllm_chat.tui.widgets.prompt import Prompt

    prompt = pilot.app.screen.query_one(Prompt)
    prompt.load_text(text)
    await pilot.press("enter")
    await pilot.pause()
