"""A server that speaks text only, as OpenAI's first interface did: tokens by name, rows of an end in an echo alone."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from local_worker.engine.messages import BYTE, CONTROL, NORMAL, UNKNOWN, EngineVocabulary
from local_worker.remote_engine.asking import Asker
from local_worker.remote_engine.errors import RemoteTextUnclear, RemoteTokenUnclear, RemoteUnfit
from local_worker.remote_engine.examining import PROBES, examine
from local_worker.remote_engine.following import Following
from local_worker.remote_engine.http import RemoteHttp
from local_worker.remote_engine.options import RemoteServer
from local_worker.remote_engine.words import Words
from tests.local_worker.remote_engine.conftest import LIMITS
from tests.local_worker.remote_engine.double import logprobs_after

_SAID = sorted({word for probe in PROBES for word in re.findall(r"\s*\S+", probe)})
PIECES = ["<unk>", "<s>", "</s>", "<|end|>", *_SAID, *(f" w{n}" for n in range(40)), "twin", "twin"]
BOS, ENDS = 1, (2, 3)
FIRST_WORD = PIECES.index(" w0")
TO_SECOND_END = FIRST_WORD + 1
"""After this word the second of the model's end tokens is the likeliest."""
TO_FIRST_END = FIRST_WORD + 2
TO_TWIN = FIRST_WORD + 3


def vocabulary() -> EngineVocabulary:
    kinds = (UNKNOWN, CONTROL, CONTROL, CONTROL, *[NORMAL] * (len(PIECES) - 4))
    pieces = tuple(piece.encode() for piece in PIECES)
    return EngineVocabulary(pieces, kinds, ENDS, BOS, 2, 3, True, False, "bpe")


class Tokenizer:
    """Reads words, and control tokens where they are marked."""

    async def tokenize(self, text: str, *, marked: bool = False) -> list[int]:
        return read(text, marked)


def read(text: str, marked: bool) -> list[int]:
    found = []
    while text:
        known = [p for n, p in enumerate(PIECES) if text.startswith(p) and (n > 3 or marked)]
        longest = max(known, key=len, default="")
        found.append(PIECES.index(longest) if longest else 0)
        text = text[len(longest) or 1 :]
    return found


@dataclass
class TextServer:
    """By a rule: words follow words, but for those after which an end or an unclear token is the likeliest."""

    echo_shift: int | None = 0
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def row(self, ids: Sequence[int], bias: dict[str, float] | None = None) -> np.ndarray:
        row = logprobs_after(ids, len(PIECES))
        row[:FIRST_WORD] -= 30
        row[-2:] -= 30
        row[[TO_FIRST_END, TO_SECOND_END, TO_TWIN]] -= 30
        special = {TO_FIRST_END: 2, TO_SECOND_END: 3, TO_TWIN: len(PIECES) - 1}.get(ids[-1])
        if special is not None:
            row[special] = row.max() + 1
        for token, value in (bias or {}).items():
            row[int(token)] += value
        return np.asarray(row - np.log(np.exp(row).sum()))

    def named(self, token: int) -> str:
        return "" if token <= 3 else PIECES[token]

    async def complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if not isinstance(asked["prompt"], str):
            return web.json_response({"error": {"message": "a prompt is text"}}, status=422)
        self.asked.append(asked)
        ids = [BOS, *read(asked["prompt"], True)]
        prompt, finish = list(ids), "length"
        tokens, tops = [], []
        if asked.get("echo"):
            if self.echo_shift is None:
                return web.json_response({"error": "no echo"}, status=400)
            begin = -self.echo_shift
            tokens = [self.named(token) for token in ids[begin:]]
            tops = [self.top(ids[:at], ids[at], asked) if at else None for at in range(begin, len(ids))]
        for _ in range(asked["max_tokens"]):
            row = self.row(ids, asked.get("logit_bias"))
            token = int(row.argmax())
            if token in ENDS:
                finish = "stop"
                break
            tokens.append(self.named(token))
            tops.append(self.top(ids, token, asked))
            ids.append(token)
        text = "".join(tokens[-(len(ids) - len(prompt)) :] if len(ids) > len(prompt) else [])
        if not asked["stream"]:
            choice = self.choice(text, tokens, tops, finish)
            return web.json_response({"choices": [choice], "usage": {"prompt_tokens": len(prompt)}})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for one, top in zip(tokens, tops, strict=True):
            await self.send(response, self.choice(one, [one], [top], None))
        await self.send(response, {"text": "", "logprobs": None, "finish_reason": finish})
        await response.write(b"data: [DONE]\n\n")
        return response

    def top(self, ids: Sequence[int], then: int, asked: dict[str, Any]) -> dict[str, float]:
        row = self.row(ids, asked.get("logit_bias"))
        best = {self.named(int(t)): float(row[t]) for t in np.argsort(-row)[: int(str(asked["logprobs"]))]}
        return best | {self.named(then): float(row[then])}

    def choice(self, text: str, tokens: list[str], tops: list[Any], finish: str | None) -> dict[str, Any]:
        return {"text": text, "logprobs": {"tokens": tokens, "top_logprobs": tops}, "finish_reason": finish}

    async def send(self, response: web.StreamResponse, choice: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


async def list_models(_: web.Request) -> web.StreamResponse:
    return web.json_response({"data": [{"id": "davinci"}]})


@asynccontextmanager
async def serving(server: TextServer) -> AsyncIterator[RemoteHttp]:
    app = web.Application()
    app.add_routes([web.get("/v1/models", list_models), web.post("/v1/completions", server.complete)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    http = RemoteHttp(RemoteServer(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", limits=LIMITS), 4)
    try:
        yield http
    finally:
        await http.close()
        await runner.cleanup()


async def examined(http: RemoteHttp) -> Asker:
    asker, _ = await examine(http, Words(vocabulary()), Tokenizer())
    return asker


@pytest.mark.parametrize("shift", [0, -1])
async def test_rows_by_name_and_ends_out_of_an_echo(shift: int) -> None:
    server = TextServer(shift)
    async with serving(server) as http:
        asker = await examined(http)
        dialect = asker.dialect
        assert (dialect.takes_ids, dialect.names_ids, dialect.echo_offset) == (False, False, shift)
        following = Following(asker, 100)
        ids = [BOS, FIRST_WORD + 9, FIRST_WORD + 4]
        for _ in range(12):
            row = asker.words.output(await following.row_after(ids, 5), len(ids) - 1, 5)
            expected = server.row(ids)
            assert row.ids.tolist() == np.argsort(-expected)[:5].tolist()
            assert np.allclose(row.logits, expected[row.ids], atol=1e-5)
            ids.append(int(row.ids[0]))
        for word, end in ((TO_FIRST_END, 2), (TO_SECOND_END, 3)):
            at_end = [*ids, word]
            row = asker.words.output(await following.row_after(at_end, 5), len(at_end) - 1, 5)
            expected = server.row(at_end)
            assert row.ids.tolist() == np.argsort(-expected)[:5].tolist()
            assert row.ids[0] == end
            assert np.allclose(row.logits, expected[row.ids], atol=1e-5)
        following.drop()


async def test_a_name_that_two_tokens_have_is_no_token() -> None:
    async with serving(TextServer()) as http:
        asker = await examined(http)
        following = Following(asker, 100)
        row = await following.row_after([BOS, TO_TWIN], 5)
        with pytest.raises(RemoteTokenUnclear, match=r"'twin', which 2 tokens"):
            asker.words.output(row, 1, 5)
        following.drop()


async def test_what_the_text_does_not_say_is_not_asked() -> None:
    server = TextServer()
    async with serving(server) as http:
        asker = await examined(http)
        server.asked.clear()
        with pytest.raises(RemoteTextUnclear, match=r"puts token 1 before every text"):
            await asker.prompt([FIRST_WORD, FIRST_WORD])
        with pytest.raises(RemoteTextUnclear, match="as other tokens"):
            await asker.prompt([BOS, len(PIECES) - 1])  # its twin is what the text says
        assert await asker.prompt([BOS, FIRST_WORD, 3, FIRST_WORD]) == " w0<|end|> w0"
        assert server.asked == []


async def test_a_server_that_shows_no_end_is_refused_at_the_start() -> None:
    async with serving(TextServer(None)) as http:
        with pytest.raises(RemoteUnfit, match="no row where the model ends"):
            await examined(http)


async def test_a_tokenizer_that_counts_otherwise_is_refused_at_the_start() -> None:
    async with serving(TextServer()) as http:
        without_begin = replace(vocabulary(), adds_bos=False)
        with pytest.raises(RemoteUnfit, match=r"tokens by the model file and \d+ by the server"):
            await examine(http, Words(without_begin), Tokenizer())


def test_a_bytes_token_gives_way_to_a_words() -> None:
    pieces = (b"a", b"a", b"\n", b"\xff", b"b", b"b")
    words = Words(
        EngineVocabulary(
            pieces, (NORMAL, BYTE, BYTE, BYTE, NORMAL, NORMAL), (), 0, 0, -1, False, False, "spm"
        )
    )
    assert [words._by_text.get(text) for text in ("a", "\n", "b", "", "\ufffd")] == [0, 2, None, None, None]
