"""From a conversation to token ids: the client renders and places control tokens, a stage only tokenises text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from dllm_protocol.chat_templates import SYSTEM, ChatMessage, Parts, template_named
from dllm_protocol.errors import UsageRefused
from dllm_protocol.vocabulary import CONTROL, NO_TOKEN, Vocabulary, check_spelling

Tokenizer = Callable[[Sequence[bytes]], Awaitable[list[list[int]]]]


MOST_BYTES_PER_TOKEN = 64
"""No text of this many bytes a token has ever been seen to fit; what is longer is shortened without asking."""


class PromptTooLong(UsageRefused):
    """Even the last message alone does not fit the model's context."""

    code = "E_CONTEXT"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation."""

    ids: list[int]
    ends: frozenset[int]
    """Tokens that end the answer."""
    stops: tuple[str, ...]
    """Texts that end the answer, where the vocabulary has no token for them."""
    dropped_messages: int
    """Oldest messages left out so that it fits."""


class PromptMaker:
    """Renders conversations for one model."""

    def __init__(self, template_name: str, vocabulary: Vocabulary) -> None:
        self._template = template_named(template_name)
        self._vocabulary = vocabulary
        self._control = {
            piece.text: token
            for token, piece in enumerate(vocabulary.pieces)
            if piece.kind == CONTROL and piece.text
        }

        self._known: dict[bytes, list[int]] = {}
        """Tokens of texts that were asked for already; a conversation that is shortened is not asked for again."""

    async def make(
        self, messages: Sequence[ChatMessage], tokenize: Tokenizer, *, context_rows: int, answer_rows: int
    ) -> Prompt:
        """Render, have it tokenised, check it, and leave out the oldest messages until it fits.

        Args:
            answer_rows: rows to keep free for the answer.

        Raises:
            PromptTooLong, TokensRefused
        """
        room = context_rows - answer_rows
        kept = list(messages)
        while _size(kept) > context_rows * MOST_BYTES_PER_TOKEN and len(_without_oldest(kept)) < len(kept):
            kept = _without_oldest(kept)  # far too long: not even worth a question
        while True:
            ids = await self._ids(self._template.render(kept), tokenize)
            if len(ids) <= room:
                return Prompt(ids, self._end_tokens(), self._end_texts(), len(messages) - len(kept))
            shorter = _without_oldest(kept)
            if len(shorter) == len(kept):
                raise PromptTooLong(
                    f"the message has {len(ids)} tokens, the model has room for {max(0, room)}",
                    hint="shorten it, or ask for fewer tokens",
                )
            kept = shorter

    async def _ids(self, parts: Parts, tokenize: Tokenizer) -> list[int]:
        pieces = self._split(parts)
        texts = {piece: None for piece in pieces if isinstance(piece, bytes)}
        unknown = [text for text in texts if text not in self._known]
        for text, tokens in zip(unknown, await tokenize(unknown) if unknown else [], strict=True):
            check_spelling(self._vocabulary, tokens, text)
            self._known[text] = tokens
        ids: list[int] = []
        if self._vocabulary.adds_begin and self._vocabulary.begin_token != NO_TOKEN:
            ids.append(self._vocabulary.begin_token)
        for piece in pieces:
            if isinstance(piece, int):
                if ids[-1:] != [piece] or piece != self._vocabulary.begin_token:
                    ids.append(piece)
                continue
            ids += self._known[piece]
        return ids

    def _split(self, parts: Parts) -> list[int | bytes]:
        """Control tokens as ids, neighbouring texts joined; markers without a token are text."""
        out: list[int | bytes] = []
        for part in parts:
            token = self._control.get(part.text.encode()) if part.marker else None
            if token is not None:
                out.append(token)
                continue
            text = part.text.encode()
            last = out[-1] if out else 0
            if isinstance(last, bytes):
                out[-1] = last + text
            elif text:
                out.append(text)
        return out

    def _end_tokens(self) -> frozenset[int]:
        named = {self._control[end.encode()] for end in self._template.ends if end.encode() in self._control}
        if self._vocabulary.end_token != NO_TOKEN:
            named.add(self._vocabulary.end_token)
        return frozenset(named)

    def _end_texts(self) -> tuple[str, ...]:
        return tuple(end for end in self._template.ends if end.encode() not in self._control)


def _without_oldest(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Without the oldest exchange; the system message and the last message always stay."""
    head = [message for message in messages[:1] if message.role == SYSTEM]
    rest = messages[len(head) :]
    return head + (rest[2:] if len(rest) > 2 else rest)


def _size(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.text.encode()) for message in messages)
