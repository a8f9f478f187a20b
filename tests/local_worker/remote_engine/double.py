"""A completions server for tests: answers in vLLM's or llama-server's form out of a rule in place of a model, and
misbehaves in whichever way a test asks for.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

from local_worker.engine.messages import CONTROL, UNKNOWN, EngineVocabulary

VLLM, LLAMA_SERVER = "vLLM", "llama-server"
KEY = "sk-only-the-server-may-see-this"


def logprobs_after(ids: Sequence[int], size: int) -> np.ndarray:
    """The rule: a row's log-probabilities, from its last three tokens."""
    logits = 3 * np.random.default_rng([7, *ids[-3:]]).standard_normal(size)
    return np.asarray(logits - math.log(np.exp(logits).sum()))


@dataclass
class Double:
    """What it was told to be, and what it saw."""

    pieces: list[bytes]
    controls: frozenset[int]
    ends: frozenset[int]
    form: str = VLLM
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "big", "max_model_len": 4096}])
    key: str = ""
    most_top: int = 20
    answers_as: str = "big"
    faults: list[str] = field(default_factory=list)
    """What goes wrong with the next requests for streams, one each."""
    without_logprobs: bool = False
    bends_choice: bool = False
    takes_bias: bool = True
    url: str = ""
    streams: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    def row(self, ids: Sequence[int]) -> np.ndarray:
        return logprobs_after(ids, len(self.pieces))

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers.get("Authorization", ""))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        return web.json_response({"data": self.models})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("logprobs", 0) > self.most_top:
            return web.json_response({"message": f"at most {self.most_top} logprobs"}, status=400)
        if asked.get("echo") or (asked.get("logit_bias") and not self.takes_bias):
            return web.json_response({"message": "not here"}, status=400)
        ids = asked["prompt"]
        if isinstance(ids, str):
            return web.json_response({"message": "a prompt is token ids here"}, status=400)
        if asked["stream"]:
            self.streams.append(asked)
            if self.faults:
                return await self.misbehave(self.faults.pop(0), request, asked, ids)
            return await self.stream(request, asked, ids, asked["max_tokens"])
        tokens = self.go_on(ids, asked)
        text = self.text([token for token, _ in tokens])
        answer = self.answer(text, tokens, asked) | {"usage": {"prompt_tokens": len(ids)}}
        return web.json_response(answer)

    def go_on(self, ids: Sequence[int], asked: dict[str, Any]) -> list[tuple[int, np.ndarray]]:
        ids, made = list(ids), []
        for _ in range(int(str(asked["max_tokens"]))):
            row = self.row(ids)
            token = int(np.argsort(-row)[9 if self.bends_choice else 0])
            made.append((token, row))
            ids.append(token)
        return made

    def text(self, tokens: list[int]) -> str:
        return b"".join(self.pieces[t] for t in tokens if t not in self.controls).decode(errors="replace")

    def answer(
        self,
        text: str,
        tokens: list[tuple[int, np.ndarray]],
        asked: dict[str, Any],
        finish: str | None = None,
    ) -> dict[str, Any]:
        k = int(str(asked["logprobs"]))
        said = self.by_id(tokens, k) if self.form == LLAMA_SERVER else self.by_text(tokens, k)
        logprobs = None if self.without_logprobs else said
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return {"id": "x", "model": self.answers_as, "choices": [choice]}

    def by_text(self, tokens: list[tuple[int, np.ndarray]], k: int) -> dict[str, Any]:
        tops = [{f"token_id:{t}": float(row[t]) for t in np.argsort(-row)[:k]} for _, row in tokens]
        names = [f"token_id:{token}" for token, _ in tokens]
        return {"tokens": names, "token_logprobs": [float(row[t]) for t, row in tokens], "top_logprobs": tops}

    def by_id(self, tokens: list[tuple[int, np.ndarray]], k: int) -> dict[str, Any]:
        return {
            "content": [
                self.entry(t, row) | {"top_logprobs": [self.entry(int(o), row) for o in np.argsort(-row)[:k]]}
                for t, row in tokens
            ]
        }

    def entry(self, token: int, row: np.ndarray) -> dict[str, Any]:
        raw = b"" if token in self.controls else self.pieces[token]
        return {
            "id": token,
            "token": raw.decode(errors="ignore"),
            "bytes": list(raw),
            "logprob": float(row[token]),
        }

    async def stream(
        self,
        request: web.Request,
        asked: dict[str, Any],
        ids: Sequence[int],
        rows: int,
        ending: str = "length",
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for token, row in self.go_on(ids, asked)[:rows]:
                answer = self.answer(self.text([token]), [(token, row)], asked)
                await response.write(b"data: " + json.dumps(answer).encode() + b"\n\n")
            if ending == "hang":
                await asyncio.sleep(60)
            if ending == "cut":
                assert request.transport is not None
                request.transport.abort()
            elif ending != "silent":
                last = self.answer("", [], asked, ending)
                last["choices"][0]["logprobs"] = None
                await response.write(b"data: " + json.dumps(last).encode() + b"\r\n\r\n")
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.dropped.set()
            raise
        return response

    async def misbehave(
        self, fault: str, request: web.Request, asked: dict[str, Any], ids: Sequence[int]
    ) -> web.StreamResponse:
        match fault:
            case "hang":
                return await self.stream(request, asked, ids, 0, "hang")
            case "cut":
                return await self.stream(request, asked, ids, 0, "cut")
            case "cut after a row":
                return await self.stream(request, asked, ids, 1, "cut")
            case "made room":
                return await self.stream(request, asked, ids, 0, "silent")
            case "ends":
                return await self.stream(request, asked, ids, 0, "stop")
            case "html":
                return web.Response(text="<html>welcome</html>", content_type="text/html")
            case "redirect":
                return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/steal"})
            case "other model":
                self.answers_as = "other"
                return await self.stream(request, asked, ids, 4)
            case "error inside":
                return await self.events(
                    request, b'data: {"error": {"message": "out of \\u001b[31m memory"}}\n\n'
                )
            case "no json":
                return await self.events(request, b"data: {]\n\n")
            case "oversized":
                return await self.events(request, b"data: " + b"x" * (3 << 20) + b"\n\n")
            case "above certain":
                row = self.row(ids) + 20
                return await self.events(request, self.one(asked, ids, row))
            case "not summing":
                row = np.full(len(self.pieces), -0.5)
                return await self.events(request, self.one(asked, ids, row))
            case "unknown token":
                bad = json.dumps(self.by_foreign_id()).encode()
                return await self.events(request, b"data: " + bad + b"\n\n")
            case "other bytes":
                bad = json.dumps(self.by_foreign_bytes()).encode()
                return await self.events(request, b"data: " + bad + b"\n\n")
            case "text without rows":
                return await self.events(request, b'data: {"choices": [{"text": "hello"}]}\n\n')
            case "chatter":
                return await self.events(request, b'data: {"choices": []}\n\n' * 200)
            case "no room for this context":
                words = "This model's maximum context length is 10 tokens"
                return web.json_response({"error": {"message": words}}, status=400)
            case _:
                return web.json_response({"error": {"message": "later"}}, status=int(fault))

    def one(self, asked: dict[str, Any], ids: Sequence[int], row: np.ndarray) -> bytes:
        return b"data: " + json.dumps(self.answer("", [(int(row.argmax()), row)], asked)).encode() + b"\n\n"

    def by_foreign_id(self) -> dict[str, Any]:
        entry = {"id": 10**6, "token": "x", "bytes": [120], "logprob": -0.1}
        return {"choices": [{"text": "x", "logprobs": {"content": [entry | {"top_logprobs": [entry]}]}}]}

    def by_foreign_bytes(self) -> dict[str, Any]:
        entry = {"id": 300, "token": "\u00e9", "bytes": [0xC3, 0xA9], "logprob": -0.1}
        return {"choices": [{"text": "\u00e9", "logprobs": {"content": [entry | {"top_logprobs": [entry]}]}}]}

    async def events(self, request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(data)
        return response


@asynccontextmanager
async def double_server(vocabulary: EngineVocabulary) -> AsyncIterator[Double]:
    """A server on a free port of loopback; it serves `Double`'s rule over the vocabulary."""
    unsaid = frozenset(t for t, kind in enumerate(vocabulary.attributes) if kind & (CONTROL | UNKNOWN))
    double = Double(list(vocabulary.pieces), unsaid, frozenset(vocabulary.end_ids))
    app = web.Application(client_max_size=1 << 24)
    app.add_routes([web.get("/v1/models", double.list_models), web.post("/v1/completions", double.complete)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield double
    finally:
        await runner.cleanup()
