"""The door between screens (TUI, CLI) and machinery: one Protocol, implemented by `service.ChatService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from dllm_chat.session.events import AskEvent, AskOptions, Balance, WorkerStatus
from dllm_protocol.chat_templates import ChatMessage
from light_node.client import Freshness


class ChatDoor(Protocol):
    """Everything that a screen needs. All failures are leaves of `dllm_protocol.errors.DllmError`."""

    async def open(self, on_progress: Callable[[str], None]) -> None:
        """Find or start the network, load the wallet, verify the chain's tip. May take seconds; call once."""
        ...

    @property
    def badge(self) -> str:
        """``LOCAL`` or ``NETWORK``; empty before `open` is through."""
        ...

    @property
    def chain_id(self) -> str:
        """Empty before `open` is through."""
        ...

    def freshness(self) -> Freshness:
        """Verified height, lag, age of trust, state; asks nobody."""
        ...

    async def refresh(self) -> Freshness:
        """Verify the newest header."""
        ...

    async def default_model(self) -> str:
        """Name of the model that is used unless another is asked for."""
        ...

    async def models(self) -> list[str]:
        """Names of all registered models."""
        ...

    async def balance(self) -> Balance:
        """Proved balance."""
        ...

    def ask(self, messages: Sequence[ChatMessage], options: AskOptions) -> AsyncIterator[AskEvent]:
        """Answer a conversation. Closing the iterator (``aclose``) stops the answer within one token;
        use `stop` to stop and still get `Answered` with the text so far."""
        ...

    def stop(self) -> None:
        """End the running answer after the current token; `Answered` follows with finish_reason ``stopped``."""
        ...

    async def worker_on(self, model_file: Path | None = None) -> None:
        """Start contributing; returns when the worker process was started."""
        ...

    async def worker_off(self) -> None:
        """Drain and stop contributing."""
        ...

    async def worker_status(self) -> WorkerStatus:
        """How the worker does."""
        ...

    async def close_sessions(self) -> None:
        """Settle all open sessions."""
        ...

    async def aclose(self) -> None:
        """Let go of the network; an embedded one lingers and then stops."""
        ...
