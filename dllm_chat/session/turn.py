"""One answer: prompt in, tokens out, with the standby taking over when a provider fails.

The client keeps the token log. A leg that dies is replaced by the next provider of the route, the log is replayed
into it, and sampling goes on from the logits behind the log's last token: no text is repeated or lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from dllm_chat.session.decoder import Decoder, RowLogits
from dllm_chat.session.events import AskOptions, TextDelta
from dllm_chat.session.leg import LegFailed
from dllm_chat.session.prompt import Prompt, PromptMaker
from dllm_chat.session.sampler import Sampler
from dllm_chat.session.speculation import Speculation
from dllm_chat.session.text import TextStream
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.messages import ROW_PROMPT, ROW_REPLAYED
from dllm_protocol.session.ledger import DepositUsedUp
from dllm_protocol.vocabulary import TokensRefused, Vocabulary

PENALTY_WINDOW = 64
"""The repetition penalty looks back this many tokens."""
CANDIDATES = 64
"""Logits asked for a row where a penalty may lift any of them; more than any sensible sampling uses."""
GREEDY_CANDIDATES = 8
"""Logits asked for a row where only the largest counts; the others are for who looks closer."""
CLOSE_LOGITS = 0.25
"""Nearer than this, two tokens may change places when rows are decoded in batches of other shapes: twice the most that
was measured, 0.13 with 1.1 billion parameters in Q8_0. Weights in f32 move logits by a ten-thousandth of that."""

FINISH_STOP, FINISH_LENGTH, FINISH_STOPPED = "stop", "length", "stopped"

NextLeg = Callable[[LegFailed | DepositUsedUp], Awaitable[Decoder]]


@dataclass(slots=True)
class Turn:
    """One answer under way.

    Args:
        leg: the leg to begin with.
        next_leg: called with what ended the use of a leg: its failure (opens another provider's leg) or a
            deposit that is used up (tops it up and opens the same provider's leg again); raises where it cannot.
        speculation: fresh, for this answer.
    """

    leg: Decoder
    next_leg: NextLeg
    vocabulary: Vocabulary
    maker: PromptMaker
    sampler: Sampler
    options: AskOptions
    context_rows: int
    speculation: Speculation | None = None
    """None: one row at a time."""
    stop_asked: bool = False
    prompt: Prompt | None = None
    generated: list[int] = field(default_factory=list)
    finish_reason: str = FINISH_LENGTH
    text: str = ""
    close_calls: int = 0
    """Tokens that another batch shape might have exchanged, since rows were first decoded in one."""
    _reshaped: bool = False
    """Whether some rows were: in a window, or anew by whoever took over."""

    async def run(self, messages: Sequence[ChatMessage]) -> AsyncIterator[TextDelta]:
        """Answer a conversation, piece by piece."""
        prompt = await self._prompt(messages)
        self.prompt = prompt
        stream = TextStream(self.vocabulary, (*self.options.stop, *prompt.stops))
        if self.speculation is not None:
            self.speculation.begin(prompt.ids)
        row = await self._decode(list(prompt.ids), ROW_PROMPT)
        while True:
            token = self.sampler.pick(row.ids, row.logits, self._recent(prompt))
            self.close_calls += self._reshaped and self.sampler.margin < CLOSE_LOGITS
            if token in prompt.ends:
                self.finish_reason = FINISH_STOP
                break
            self.generated.append(token)
            shown = stream.push(token)
            self.text = stream.text
            if shown:
                yield TextDelta(shown)
            if stream.stopped:
                self.finish_reason = FINISH_STOP
                break
            if self.stop_asked:
                self.finish_reason = FINISH_STOPPED
                break
            if len(self.generated) >= self.options.max_tokens or self._context_full():
                break
            row = await self._decode_next(prompt, token)
        rest = stream.finish()
        self.text = stream.text
        if rest:
            yield TextDelta(rest)
        await self._seal()

    @property
    def rows(self) -> int:
        """Of the answer so far, its prompt included; 0 before there is one."""
        return len(self.prompt.ids) + len(self.generated) if self.prompt is not None else 0

    def _context_full(self) -> bool:
        """Whether the next row would be one more than the model, or whoever serves it, can hold."""
        return self.rows > min(self.context_rows, self.leg.context_rows)

    def _recent(self, prompt: Prompt) -> frozenset[int]:
        """Tokens that the repetition penalty discourages."""
        if self.options.sampling.repetition_penalty == 1.0:
            return frozenset()
        return frozenset([*prompt.ids, *self.generated][-PENALTY_WINDOW:])

    async def _prompt(self, messages: Sequence[ChatMessage]) -> Prompt:
        while True:
            rows = min(self.context_rows, self.leg.context_rows)
            answer_rows = min(self.options.max_tokens, max(1, rows // 2))
            try:
                return await self.maker.make(
                    messages, self.leg.tokenize, context_rows=rows, answer_rows=answer_rows
                )
            except LegFailed as failure:
                self.leg = await self.next_leg(failure)
            except TokensRefused as refusal:
                self.leg = await self.next_leg(LegFailed(refusal.message, hint=refusal.hint))

    async def _decode(self, ids: list[int], kind: int) -> RowLogits:
        """Have ``ids`` decoded by whoever is alive."""
        while True:
            try:
                if self.speculation is not None and self.leg.round_trip_s is None:
                    await self.leg.ping()  # its answer comes while these rows are decoded
                return self._spoken(await self.leg.decode(ids, kind=kind, top_k=self._candidates()))
            except (LegFailed, DepositUsedUp) as failure:
                self.leg = await self.next_leg(failure)
                kind = ROW_REPLAYED if isinstance(failure, LegFailed) else kind

    async def _decode_next(self, prompt: Prompt, token: int) -> RowLogits:
        """The logits behind a token."""
        try:
            if self.speculation is None:
                return self._spoken(await self.leg.decode_next(token, self._candidates()))
            row, in_window = await self.speculation.decode_next(
                self.leg, token, top_k=self._candidates(), most=self._rows_beyond()
            )
            self._reshaped |= in_window
            return self._spoken(row)
        except (LegFailed, DepositUsedUp) as failure:
            if self.speculation is not None:
                self.speculation.forget()
            self.leg = await self.next_leg(failure)
            self._reshaped |= isinstance(failure, LegFailed)
            # The newest row counts as kept all the same; others only where whoever goes on does not hold them.
            return await self._decode([*prompt.ids, *self.generated], ROW_REPLAYED)

    def _rows_beyond(self) -> int:
        """Rows behind the newest token's that the answer may need, at most."""
        room = min(self.context_rows, self.leg.context_rows) - self.rows
        return max(0, min(self.options.max_tokens - len(self.generated) - 1, room))

    def _spoken(self, row: RowLogits) -> RowLogits:
        """The row, if it names tokens of this model only. Raises LegFailed."""
        beyond = max(row.ids)
        if beyond >= len(self.vocabulary.pieces):
            failure = LegFailed(f"token {beyond} was given, the model has {len(self.vocabulary.pieces)}")
            failure.provider = self.leg.speaker
            raise failure
        return row

    async def _seal(self) -> None:
        """The last rows' acknowledgement; a provider that fails now only loses its ack."""
        try:
            if self.speculation is not None:
                await self.speculation.give_up(self.leg)
            await self.leg.seal_turn()
        except LegFailed:
            return

    def _candidates(self) -> int:
        sampling = self.options.sampling
        if sampling.repetition_penalty != 1.0:
            wanted = max(CANDIDATES, sampling.top_k)
        else:
            wanted = GREEDY_CANDIDATES if sampling.temperature <= 0.0 else sampling.top_k
        return min(wanted, self.leg.top_k)
