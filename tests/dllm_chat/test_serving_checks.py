"""What cannot be served is refused before a worker is started."""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dllm_chat import serving_checks
from dllm_chat.contributing import packaged_model, run_json, worker_command
from dllm_chat.serving_checks import ClientOnly, check_serving, require_worker_extra
from dllm_chat.serving_from import ServingFrom
from dllm_protocol.errors import NetworkUnreachable, NotFound, UsageRefused


@pytest.fixture
def client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra `worker` was not installed."""
    real = importlib.util.find_spec

    def without_extra(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name in ("numpy", "llama_cpp") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_extra)


async def test_a_client_only_installation_is_named_with_the_way_on(client_only: None, tmp_path: Path) -> None:
    for attempt in (
        run_json(["python", "-m", "local_worker", "init", "--home", str(tmp_path), "--json"], 30),
        check_serving(None, None),
    ):
        with pytest.raises(ClientOnly, match="client-only: numpy and llama_cpp missing") as caught:
            await attempt
        assert caught.value.hint == "dllm network join BUNDLE, or make setup for the rest"
    assert (ClientOnly.code, ClientOnly.exit_code) == ("E_CLIENT_ONLY", 3)
    with pytest.raises(ClientOnly):
        worker_command(tmp_path, tmp_path / "bundle")


def test_a_whole_installation_has_the_extra() -> None:
    require_worker_extra()


async def test_a_file_that_is_no_model_is_refused_with_its_name(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("buy milk\n")
    with pytest.raises(UsageRefused, match=r"notes\.txt is not a GGUF file") as caught:
        await check_serving(notes, None)
    assert "dllm model found" in caught.value.hint
    with pytest.raises(NotFound, match="no model file"):
        await check_serving(tmp_path / "gone.gguf", None)
    await check_serving(packaged_model(), None)


@asynccontextmanager
async def answering(status: bytes) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_a_server_that_answers_anything_is_there() -> None:
    for status in (b"200 OK", b"401 Unauthorized", b"307 Elsewhere"):
        async with answering(status) as url:
            await check_serving(None, ServingFrom(url))


async def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NetworkUnreachable, match=f"server at {place} does not answer") as caught:
            await check_serving(None, ServingFrom(f"http://me:secret@{place}/v1"))
        assert caught.value.hint and "secret" not in caught.value.message
        taken.listen()
        monkeypatch.setattr(serving_checks, "SERVER_TIMEOUT_S", 0.05)
        with pytest.raises(NetworkUnreachable, match=r"no word in 0\.05 s"):
            await check_serving(None, ServingFrom(f"http://{place}/v1"))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://h/v1", "http://", "http://h:99999/v1", "http://[::1"]
)
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageRefused, match="no address of a server"):
        await check_serving(None, ServingFrom(url))
