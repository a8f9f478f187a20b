"""Asking a faucet: a stranger's words, bounded and cleaned, and never believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dllm_chat.session.faucet import MAX_ANSWER_BYTES, FaucetRefused, Grant, ask_faucet
from dllm_protocol.errors import NetworkUnreachable, UsageRefused

GOOD = {"ok": True, "data": {"tx_hash": "AB", "height": 3, "amount_udllm": 5}}


@asynccontextmanager
async def answering(body: bytes, status: str = "200 OK", headers: str = "") -> AsyncIterator[str]:
    """A web server that says the same to everybody."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_a_grant_is_read() -> None:
    async with answering(json.dumps(GOOD).encode()) as url:
        assert await ask_faucet(url, "tdllm1x") == Grant("AB", 3, 5)


async def test_a_refusal_is_told_without_what_could_drive_a_terminal() -> None:
    said = {"ok": False, "error": {"code": "E", "message": "no\x1b[2J more", "hint": "wait\x07"}}
    async with answering(json.dumps(said).encode(), "429 Too Many Requests") as url:
        with pytest.raises(FaucetRefused) as caught:
            await ask_faucet(url, "tdllm1x")
    assert "\x1b" not in caught.value.message + caught.value.hint
    assert "more" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"ok": true}',
        b'{"ok": true, "data": {"tx_hash": 1, "height": "x", "amount_udllm": 1}}',
        b'{"ok": true, "data": {"tx_hash": "AB", "height": 1, "amount_udllm": 0}}',
        b'{"ok": true, "data": {"tx_hash": "AB", "height": 1, "amount_udllm": -5}}',
        b'{"ok": false, "error": "text"}',
        b"\xff\xfe",
        b" " * (MAX_ANSWER_BYTES + 1),
    ],
)
async def test_what_is_no_faucet_is_said_to_be_none(body: bytes) -> None:
    async with answering(body) as url:
        with pytest.raises(NetworkUnreachable):
            await ask_faucet(url, "tdllm1x")


async def test_a_faucet_sends_nobody_elsewhere() -> None:
    async with (
        answering(json.dumps(GOOD).encode()) as other,
        answering(b"moved", "307 Temporary Redirect", f"Location: {other}\r\n") as url,
    ):
        with pytest.raises(NetworkUnreachable):
            await ask_faucet(url, "tdllm1x")


@pytest.mark.parametrize("url", ["", "ws://127.0.0.1:1", "file:///etc/passwd", "127.0.0.1:80"])
async def test_only_web_addresses_are_asked(url: str) -> None:
    with pytest.raises(UsageRefused):
        await ask_faucet(url, "tdllm1x")


async def test_a_faucet_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(NetworkUnreachable, match="does not answer"):
        await ask_faucet("http://127.0.0.1:1/", "tdllm1x")
