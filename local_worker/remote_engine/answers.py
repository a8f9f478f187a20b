"""What a server answers, read strictly as far as it is used: models, completions, and events of a stream.

Rows come in one of two forms. OpenAI's own: parallel lists, the likeliest tokens as an object from a token's text to
its log-probability (vLLM puts ``token_id:7`` where the text stands, when asked to). And llama-server's: a list of
tokens with id, bytes and log-probability each. All of it is a stranger's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from local_worker.remote_engine.errors import RemoteMalformed, RemoteRefused, quoted

MAX_MODELS = 1024
MAX_NAME = 1024
MAX_TOKENS = 1 << 16
MAX_TOP = 2048
_MOST_LIKELY = 1e-3
"""Log-probabilities are at most 0, but for a server's rounding."""
_IMPOSSIBLE = -9000.0
"""vLLM and llama-server write -9999 or the lowest float for a token that cannot come."""


@dataclass(frozen=True, slots=True)
class TokenName:
    """How a server calls a token."""

    text: str
    id: int | None = None
    raw: bytes | None = None
    """Its bytes, where the server says them."""


@dataclass(frozen=True, slots=True)
class RemoteRow:
    """What comes after one row: the token that the server went on with, and the likeliest ones."""

    chosen: TokenName
    top: tuple[tuple[TokenName, float], ...]
    """With natural-log probabilities, largest first; without what cannot come."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, or a part of one."""

    rows: tuple[RemoteRow | None, ...]
    """None: of that token the server says nothing, as of the first one of an echo."""
    text: str
    finish: str
    """Why it ended; empty: it goes on."""
    model: str
    prompt_rows: int | None
    """How many tokens the server says that the prompt had."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that a server names."""

    name: str
    context_rows: int | None


def json_of(body: bytes) -> object:
    """Any JSON, without the constants that are none.

    Raises:
        RemoteMalformed
    """
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        start = body[:QUOTED_BYTES].decode("latin-1")
        raise RemoteMalformed(f"the server's answer is no JSON: it begins with {quoted(start)}") from None


QUOTED_BYTES = 60


def read_models(body: bytes) -> tuple[ListedModel, ...]:
    """The answer about which models there are.

    Raises:
        RemoteMalformed
    """
    listed = _object(json_of(body), "the list of models").get("data")
    if not isinstance(listed, list) or len(listed) > MAX_MODELS:
        raise RemoteMalformed("the list of models has no data, or too much")
    found = []
    for entry in listed:
        one = _object(entry, "a model")
        length = one.get("max_model_len")
        rows = length if type(length) is int and 0 < length < 1 << 31 else None
        found.append(ListedModel(_text(one.get("id"), "a model's id"), rows))
    return tuple(found)


def read_completion(body: bytes) -> Completion:
    """A whole completion, or one event of a stream.

    Raises:
        RemoteRefused: it is an error, in the server's words.
        RemoteMalformed
    """
    whole = _object(json_of(body), "the answer")
    if whole.get("error"):
        raise RemoteRefused(f"the server says: {quoted(error_words(whole))}")
    choices = whole.get("choices")
    if not isinstance(choices, list) or len(choices) > 1:
        raise RemoteMalformed("the answer has no choices, or more than the one asked for")
    choice = _object(choices[0], "the choice") if choices else {}
    logprobs = choice.get("logprobs")
    finish = choice.get("finish_reason")
    return Completion(
        rows=_rows(_object(logprobs, "logprobs")) if logprobs is not None else (),
        text=_text(choice.get("text") or "", "the text", limit=1 << 22),
        finish=_text(finish, "the reason of the end") if finish is not None else "",
        model=_text(whole.get("model") or "", "the model"),
        prompt_rows=_prompt_rows(whole.get("usage")),
    )


def error_words(whole: Mapping[str, object]) -> str:
    """What an error answer says, whichever of the usual forms it has; empty where it says nothing."""
    error = whole.get("error") or whole.get("message") or whole.get("detail") or ""
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code") or ""
    return error if isinstance(error, str) else ""


class EventReader:
    """Cuts a stream of server-sent events into their data; holds one event at most."""

    def __init__(self, max_event_bytes: int) -> None:
        self._bound = max_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete.

        Raises:
            RemoteMalformed: an event that is too large.
        """
        found: list[bytes] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line += line
            self._take(bytes(self._line).removesuffix(b"\r"), found)
            self._line.clear()
        self._line += rest
        self._check(len(self._line))
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if not line:
            if self._data:
                found.append(b"\n".join(self._data))
            self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":  # comments and other fields say nothing here
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            self._check(0)

    def _check(self, more: int) -> None:
        if self._size + more > self._bound:
            raise RemoteMalformed(f"an event of the server's stream is above {self._bound} bytes")


def _rows(logprobs: Mapping[str, object]) -> tuple[RemoteRow | None, ...]:
    content = logprobs.get("content")
    if isinstance(content, list):
        return tuple(_row_of_content(_object(one, "a token")) for one in _bounded(content))
    tokens, top = logprobs.get("tokens"), logprobs.get("top_logprobs")
    if tokens is None and top is None:
        return ()
    if not isinstance(tokens, list) or not isinstance(top, list) or len(tokens) != len(top):
        raise RemoteMalformed("tokens and top_logprobs are not two lists of the same length")
    return tuple(
        _row_of_lists(name, likeliest) for name, likeliest in zip(_bounded(tokens), top, strict=True)
    )


def _row_of_lists(name: object, likeliest: object) -> RemoteRow | None:
    chosen = TokenName(_text(name, "a token"))
    if likeliest is None:
        return None
    pairs = _object(likeliest, "top_logprobs")
    if len(pairs) > MAX_TOP:
        raise RemoteMalformed(f"{len(pairs)} tokens for one row")
    return RemoteRow(
        chosen, _sorted([(TokenName(_text(text, "a token")), value) for text, value in pairs.items()])
    )


def _row_of_content(one: Mapping[str, object]) -> RemoteRow | None:
    likeliest = one.get("top_logprobs")
    if likeliest is None:
        return None
    if not isinstance(likeliest, list) or len(likeliest) > MAX_TOP:
        raise RemoteMalformed("top_logprobs is no list of a usable length")
    entries = [_object(entry, "a token") for entry in likeliest]
    return RemoteRow(_name(one), _sorted([(_name(entry), entry.get("logprob")) for entry in entries]))


def _name(entry: Mapping[str, object]) -> TokenName:
    token, raw = entry.get("id"), entry.get("bytes")
    if token is not None and (type(token) is not int or not 0 <= token < 1 << 31):
        raise RemoteMalformed(f"a token's id is {quoted(str(token))}")
    return TokenName(
        _text(entry.get("token") or "", "a token"), token, _raw(raw) if raw is not None else None
    )


def _raw(value: object) -> bytes:
    if not isinstance(value, list) or len(value) > MAX_NAME:
        raise RemoteMalformed("a token's bytes are no short list")
    if not all(type(byte) is int and 0 <= byte < 256 for byte in value):
        raise RemoteMalformed("a token's bytes are no bytes")
    return bytes(value)


def _sorted(pairs: list[tuple[TokenName, object]]) -> tuple[tuple[TokenName, float], ...]:
    found = []
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RemoteMalformed("a log-probability is no number")
        number = float(value) if abs(value) < 1e300 else math.copysign(math.inf, value)
        if math.isnan(number) or number > _MOST_LIKELY:
            raise RemoteMalformed(f"a log-probability is {number!r}, which is above 0")
        if number > _IMPOSSIBLE:
            found.append((name, number))
    found.sort(key=lambda pair: -pair[1])
    return tuple(found)


def _prompt_rows(usage: object) -> int | None:
    rows = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return rows if type(rows) is int and 0 <= rows < 1 << 31 else None


def _bounded(values: list[object]) -> list[object]:
    if len(values) > MAX_TOKENS:
        raise RemoteMalformed(f"{len(values)} tokens in one answer")
    return values


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise RemoteMalformed(f"{what} is {type(value).__name__}, not an object")
    return value


def _text(value: object, what: str, limit: int = MAX_NAME) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise RemoteMalformed(f"{what} is no text of at most {limit} characters")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
