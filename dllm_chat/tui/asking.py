"""One question on its way: events of the door become history and screen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from dllm_chat.history.records import Message, MessageState, Outcome, Role
from dllm_chat.history.store import History
from dllm_chat.session import events
from dllm_chat.session.service_door import ChatDoor
from dllm_chat.tui.view import AnswerProgress, quote_words
from dllm_chat.tui.wording import short_address
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.errors import DllmError

MAX_CONTEXT_MESSAGES = 40
"""Earlier messages that go with a question; the model's context limit cuts further."""


class AnswerScreen(Protocol):
    """Where an answer is shown; it may be looking at another conversation meanwhile."""

    async def answer_text(self, message_id: int, delta: str) -> None:
        """More text of an answer."""
        ...

    def answer_progress(self, message_id: int, progress: AnswerProgress) -> None:
        """What is under way, the quote, how many pieces came."""
        ...

    def answer_notes(self, message_id: int, notes: tuple[str, ...]) -> None:
        """Takeovers so far."""
        ...


def context_of(messages: Sequence[Message]) -> list[ChatMessage]:
    """What the model is told: questions with their answers; those that got no text are left out.

    Args:
        messages: a conversation in order; the last is the new question.
    """
    told: list[ChatMessage] = []
    for message in messages[-MAX_CONTEXT_MESSAGES:]:
        if message.role is Role.USER:
            if told and told[-1].role == "user":
                told.pop()
            told.append(ChatMessage("user", message.text))
        elif message.text and told:
            told.append(ChatMessage("assistant", message.text))
    return told


class Asking:
    """A running answer. It outlives a change of the conversation on screen."""

    def __init__(
        self, door: ChatDoor, history: History, conversation_id: int, answer_id: int, screen: AnswerScreen
    ) -> None:
        """Prepare; `run` asks.

        Args:
            door: who answers.
            history: keeps the answer, also while it streams.
            conversation_id: whose question is the last message before the answer.
            answer_id: the partial answer in the history.
            screen: shows it.
        """
        self.conversation_id = conversation_id
        self.answer_id = answer_id
        self.progress = AnswerProgress(doing="asking")
        self.outcome = Outcome(MessageState.PARTIAL, "")
        self._door = door
        self._history = history
        self._screen = screen
        self._pieces: list[str] = []
        self._saved_pieces = 0

    async def run(self, model: str | None) -> Outcome:
        """Ask and follow the answer to its end; failures become part of the outcome, which is saved in any case."""
        earlier = self._history.messages(
            self.conversation_id, limit=MAX_CONTEXT_MESSAGES, before=self.answer_id
        )
        options = events.AskOptions(model=model)
        try:
            async for event in self._door.ask(context_of(earlier), options):
                await self._take(event)
            if self.outcome.state is MessageState.PARTIAL:
                self.outcome = replace(self.outcome, state=MessageState.STOPPED)
        except DllmError as error:
            self.outcome = replace(
                self.outcome,
                state=MessageState.FAILED,
                error_code=error.code,
                error_message=error.message,
                error_hint=error.hint,
            )
        except asyncio.CancelledError:
            self.outcome = replace(self.outcome, state=MessageState.STOPPED)
            raise
        finally:
            self._join()
            self._history.save_answer(self.answer_id, self.outcome)
        return self.outcome

    def save_if_more(self) -> None:
        """Keep what came since the last save; called about once a second."""
        if self.outcome.state is MessageState.PARTIAL and len(self._pieces) > self._saved_pieces:
            self._join()
            self._saved_pieces = len(self._pieces)
            self._history.save_answer(self.answer_id, self.outcome)

    def _join(self) -> None:
        if self.outcome.state is not MessageState.COMPLETE and self._pieces:
            text = "".join(self._pieces)
            if len(text) > len(self.outcome.text):
                self.outcome = replace(self.outcome, text=text)

    async def _take(self, event: events.AskEvent) -> None:
        match event:
            case events.TextDelta(text):
                self._pieces.append(text)
                await self._screen.answer_text(self.answer_id, text)
                self._progress(doing="", tokens_seen=self.progress.tokens_seen + 1)
            case events.Progress(text):
                self._progress(doing=text)
            case events.QuoteReady(quote):
                self._progress(quote=quote, doing=f"quoted: {quote_words(quote)}")
            case events.Routed(_, providers):
                self.outcome = replace(
                    self.outcome, providers=tuple(provider.address for provider in providers)
                )
                self._progress(doing="waiting for the first word")
            case events.TookOver(failed, successor, reason):
                line = (
                    f"{short_address(failed.address)} failed ({reason});"
                    f" {short_address(successor.address)} went on"
                )
                self.outcome = replace(self.outcome, notes=(*self.outcome.notes, line))
                self._screen.answer_notes(self.answer_id, self.outcome.notes)
            case events.Spent(cost_udllm, fees_udllm):
                self.outcome = replace(self.outcome, cost_udllm=cost_udllm, fees_udllm=fees_udllm)
            case events.Answered(answer):
                self.outcome = _outcome(answer, self.outcome.notes)

    def _progress(self, **changes: object) -> None:
        self.progress = replace(self.progress, **changes)  # type: ignore[arg-type]  # replace checks the names itself
        self._screen.answer_progress(self.answer_id, self.progress)


def _outcome(answer: events.Answer, notes: tuple[str, ...]) -> Outcome:
    stopped = answer.finish_reason == "stopped"
    return Outcome(
        MessageState.STOPPED if stopped else MessageState.COMPLETE,
        answer.reply,
        model=answer.model,
        badge=answer.badge,
        providers=tuple(provider.address for provider in answer.providers),
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cost_udllm=answer.cost_udllm,
        fees_udllm=answer.fees_udllm,
        receipt=str(answer.receipt),
        notes=notes,
    )
