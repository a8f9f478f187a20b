"""One question: read, quoted, agreed to, answered, reported."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_chat.cli.command import Mode
from dllm_chat.cli.confirming import confirm
from dllm_chat.cli.failures import INTERRUPTED
from dllm_chat.cli.output import Report, fields, note, progress, write_text
from dllm_chat.cli.providers import prices_data
from dllm_chat.cli.service import paying, settings
from dllm_chat.session.events import (
    Answer,
    Answered,
    AskEvent,
    AskOptions,
    Progress,
    ProviderShare,
    Quote,
    QuoteReady,
    Routed,
    Sampling,
    Spent,
    TextDelta,
    TookOver,
)
from dllm_chat.session.sampler import check_sampling
from dllm_protocol.address import PROVIDER_SUFFIX, decode_address
from dllm_protocol.chat_templates import SYSTEM, USER, ChatMessage
from dllm_protocol.errors import NetworkUnreachable, NotFound, UsageRefused
from dllm_protocol.units import format_dllm, parse_dllm

if TYPE_CHECKING:
    from dllm_chat.session.service import ChatService

MAX_PROMPT_BYTES = 1 << 20
STANDARD_INPUT = "-"


class NothingAsked(UsageRefused):
    """No question, or one that cannot be one."""

    code = "E_PROMPT"


@dataclass(frozen=True, slots=True)
class Question:
    """Everything typed after ``dllm ask``."""

    prompt: str
    file: Path | None
    system: str
    model: str | None
    sampling: Sampling
    stop: tuple[str, ...]
    max_tokens: int
    max_cost: str | None
    exclude: tuple[str, ...]
    quote_only: bool
    yes: bool
    speculation: str | None = None
    """``on`` or ``off``; None: as the settings say."""

    def messages(self) -> list[ChatMessage]:
        """The conversation to be answered; reads files and standard input."""
        text = self.prompt
        if text == STANDARD_INPUT:
            text = _read(Path(STANDARD_INPUT))
        if self.file is not None:
            text = "\n\n".join(part for part in (text, _read(self.file)) if part)
        if not text.strip():
            raise NothingAsked("nothing was asked", hint='dllm ask "your question"')
        system = [ChatMessage(SYSTEM, self.system)] if self.system else []
        return [*system, ChatMessage(USER, text)]


async def answer_question(question: Question, password_file: Path | None, password_fd: int | None) -> Report:
    """Ask, and report the answer (or only the quote)."""
    check_sampling(question.sampling)
    max_cost_udllm = parse_dllm(question.max_cost) if question.max_cost is not None else None
    messages = question.messages()
    settings()
    async with paying(password_file, password_fd, speculation=question.speculation) as service:
        options = AskOptions(
            model=question.model,
            sampling=question.sampling,
            max_tokens=question.max_tokens,
            stop=question.stop,
            max_cost_udllm=max_cost_udllm,
            exclude=tuple(_provider_id(text, service.chain.prefix) for text in question.exclude),
        )
        run = _Run(service, question)
        with run.stopping_on_interrupt():
            async with aclosing(service.ask(messages, options)) as events:
                async for event in events:
                    if run.take(event):
                        break
        return run.report()


class _Run:
    """What is shown of an answer while it comes, and what it came to."""

    def __init__(self, service: ChatService, question: Question) -> None:
        self._service = service
        self._question = question
        self._stoppable = False
        self._interrupted = False
        self._wrote = False
        self._quote: Quote | None = None
        self._answer: Answer | None = None

    @contextlib.contextmanager
    def stopping_on_interrupt(self) -> Iterator[None]:
        """Once tokens are paid for, the first Ctrl-C ends the answer in good order, the second one at once."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()

        def interrupt() -> None:
            if self._stoppable and not self._interrupted:
                self._service.stop()
            elif task is not None:
                task.cancel()
            self._interrupted = True

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def take(self, event: AskEvent) -> bool:
        """Show an event; True where nothing more is wanted."""
        match event:
            case Progress():
                progress(event.text)
            case QuoteReady():
                self._quote = event.quote
                if self._question.quote_only:
                    return True
                self._agree(event.quote)
            case Routed():
                self._stoppable = True
                note(f"… asking {', '.join(share.address for share in event.providers)}")
            case TextDelta():
                if not Mode.as_json:
                    write_text(event.text)
                    self._wrote = True
            case TookOver():
                note(f"… {event.failed.address} failed ({event.reason}); {event.successor.address} goes on")
            case Spent():
                spent_udllm = event.cost_udllm + event.fees_udllm
                if spent_udllm:
                    note(
                        f"… {format_dllm(spent_udllm)} DLLM were spent, {format_dllm(event.fees_udllm)} of them fees"
                    )
            case Answered():
                self._answer = event.answer
        return False

    def report(self) -> Report:
        """The command's end."""
        if self._wrote and self._answer is not None and not self._answer.reply.endswith("\n"):
            write_text("\n")
        if self._answer is not None:
            note(_bill(self._answer))
            code = INTERRUPTED.exit_code if self._interrupted else 0
            return Report(answer_data(self._answer), "", code)
        if self._quote is not None and self._question.quote_only:
            return Report(quote_data(self._quote), _quote_text(self._quote))
        raise NetworkUnreachable("the answer ended before its receipt was made", hint="ask again")

    def _agree(self, quote: Quote) -> None:
        """Play money needs no yes; on a network, what is to be locked does, unless a limit was set."""
        note(
            f"… up to {format_dllm(quote.max_cost_udllm)} DLLM, likely {format_dllm(quote.likely_cost_udllm)}"
            + (f"; {format_dllm(quote.deposit_udllm)} are locked now" if quote.deposit_udllm else "")
        )
        limited = self._question.max_cost is not None
        if quote.deposit_udllm and not self._service.play_money:
            amount = format_dllm(quote.deposit_udllm + quote.fees_udllm)
            confirm(f"Lock {amount} DLLM for this and further answers?", yes=self._question.yes or limited)


def answer_data(answer: Answer) -> dict[str, Any]:
    """An answer in JSON."""
    return {
        "reply": answer.reply,
        "model": answer.model,
        "badge": answer.badge,
        "chain_id": answer.chain_id,
        "providers": [share_data(share) for share in answer.providers],
        "links": [{"form": one.form, "round_trip_us": one.round_trip_us} for one in answer.links],
        "tokens": {"prompt": answer.prompt_tokens, "completion": answer.completion_tokens},
        "cost_udllm": answer.cost_udllm,
        "fees_udllm": answer.fees_udllm,
        "receipt": str(answer.receipt),
        "verified": {"height": answer.verified_height, "hash": answer.verified_hash},
        "finish_reason": answer.finish_reason,
        "speculation": {
            "drafted": answer.drafted_rows,
            "accepted": answer.accepted_rows,
            "close_calls": answer.close_calls,
        },
    }


def share_data(share: ProviderShare) -> dict[str, Any]:
    """A provider in JSON."""
    return {
        "address": share.address,
        "owner": share.owner,
        "layers": [share.first_layer, share.end_layer],
        "reputation_ppm": share.reputation_ppm,
    }


def quote_data(quote: Quote) -> dict[str, Any]:
    """A quote in JSON."""
    return {
        "model": quote.model,
        "stages": [
            {
                "provider": share_data(one.provider),
                "standby": share_data(one.standby) if one.standby else None,
                "prices_udllm_per_1000": prices_data(one.prices),
            }
            for one in quote.stages
        ],
        "prompt_tokens_estimate": quote.prompt_tokens_estimate,
        "max_tokens": quote.max_tokens,
        "drafted_in_vain_rows": quote.drafted_in_vain_rows,
        "likely_cost_udllm": quote.likely_cost_udllm,
        "max_cost_udllm": quote.max_cost_udllm,
        "deposit_udllm": quote.deposit_udllm,
        "fees_udllm": quote.fees_udllm,
    }


def _quote_text(quote: Quote) -> str:
    shown: dict[str, object] = {"model": quote.model}
    for number, stage in enumerate(quote.stages, start=1):
        which = f" {number}" if len(quote.stages) > 1 else ""
        layers = f", layers {stage.provider.first_layer}:{stage.provider.end_layer}" if which else ""
        shown[f"provider{which}"] = stage.provider.address + layers
        shown[f"standby{which}"] = stage.standby.address if stage.standby else "none"
    shown |= {
        "likely": f"{format_dllm(quote.likely_cost_udllm)} DLLM",
        "at most": f"{format_dllm(quote.max_cost_udllm)} DLLM, for {quote.max_tokens} tokens and one failure",
        "deposit": f"{format_dllm(quote.deposit_udllm)} DLLM locked now, the rest comes back at closing",
        "fees": f"{format_dllm(quote.fees_udllm)} DLLM",
    }
    return fields(shown)


def _bill(answer: Answer) -> str:
    tokens = f"{answer.prompt_tokens} + {answer.completion_tokens} tokens"
    cost = f"{format_dllm(answer.cost_udllm)} DLLM"
    fees = f" + {format_dllm(answer.fees_udllm)} fees" if answer.fees_udllm else ""
    play = " (play money)" if answer.badge == "LOCAL" else ""
    return f"… [{answer.badge}] {answer.model}: {tokens}, {cost}{fees}{play}; receipt {answer.receipt}"


def _provider_id(text: str, prefix: str) -> bytes:
    return decode_address(text, prefix + PROVIDER_SUFFIX)


def _read(path: Path) -> str:
    """Text of a file, or of standard input for ``-``; bounded."""
    try:
        if str(path) == STANDARD_INPUT:
            raw = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
        else:
            with path.open("rb") as stream:
                raw = stream.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_PROMPT_BYTES:
        raise NothingAsked(f"{path} has more than {MAX_PROMPT_BYTES} bytes", hint="ask about a part of it")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise NothingAsked(f"{path} is not UTF-8 text at byte {error.start}") from error
