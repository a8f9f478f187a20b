"""The whole path from a client to a real server of completions: llama-cpp-python's own, as people run it.

It is the hardest of its kind: it takes text only, names tokens by text only, shows no row where an answer ends, drops a
stream for whoever comes next, and never answers two at once.
"""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL

import pytest

from benchmarks.bare_loop import BareLoop
from dllm_protocol.messages import (
    OUTPUTS_ALL,
    REFUSED_ENGINE,
    ROW_DRAFTED,
    ROW_KEPT,
    unpack_floats,
    unpack_ids,
)
from local_worker.engine.interface import ServingEngine
from local_worker.model_files import packaged_model
from local_worker.remote_engine.engine import RemoteEngine
from local_worker.remote_engine.errors import RemoteKeyRefused, RemoteUnfit
from local_worker.remote_engine.options import RemoteLimits, RemoteServer
from local_worker.status import read_status
from tests.local_worker.clients import Client
from tests.local_worker.workers import running_worker

CONTEXT_ROWS = 384
KEY = "sk-of-this-test"
END = 2
QUESTIONS = ("What is a voucher?", "hello", "How do I join a network?")
LIMITS = RemoteLimits(pause_s=0.05)
_RUNNING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+) ")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteServer]:
    """llama_cpp.server with the packaged model, on a port that it says."""
    log_path = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(packaged_model())]
    command += ["--model_alias", "guide", "--host", "127.0.0.1", "--port", "0", "--api_key", KEY]
    command += ["--logits_all", "true", "--n_ctx", str(CONTEXT_ROWS), "--n_threads", "1"]
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, stdin=DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            while (told := _RUNNING.search(log_path.read_text())) is None:
                assert process.poll() is None, log_path.read_text()[-2000:]
                time.sleep(0.05)
            yield RemoteServer(f"{told[1]}/v1", "guide", KEY, LIMITS)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def bare() -> Iterator[BareLoop]:
    loop = BareLoop(packaged_model(), threads=1, context_rows=CONTEXT_ROWS)
    yield loop
    loop.close()


async def prompt_of(engine: ServingEngine, question: str) -> list[int]:
    """A question in the model's chat format, control tokens placed as a client places them."""
    asked = await engine.tokenize(f"user\n{question}")
    return [3, *asked, END, *await engine.tokenize("\n"), 3, *await engine.tokenize("assistant\n")]


def greedy(bare: BareLoop, prompt: list[int]) -> list[int]:
    """Its answer by llama.cpp alone, the end token included."""
    answer = [bare.start(prompt)]
    while answer[-1] != END:
        answer += bare.greedy(answer[-1], len(prompt) + len(answer) - 1, 1)
    return answer


async def answer_of(client: Client, prompt: list[int]) -> list[int]:
    """The same by way of a channel, row by row."""
    (output,) = await client.ask(0, prompt)
    answer = [unpack_ids(output.ids)[0]]
    while answer[-1] != END:
        (output,) = await client.ask(len(prompt) + len(answer) - 1, answer[-1:], ROW_KEPT)
        assert output.logits and math.exp(unpack_floats(output.logits)[0]) <= 1.001
        answer.append(unpack_ids(output.ids)[0])
    return answer


async def test_answers_over_the_whole_path_are_those_of_llama_cpp(
    tmp_path: Path, remote: RemoteServer, bare: BareLoop
) -> None:
    async with running_worker(tmp_path / "w", packaged_model(), remote=remote) as worker:
        engine = worker.slice.engine.current()
        prompts = [await prompt_of(engine, question) for question in QUESTIONS]
        expected = [greedy(bare, prompt) for prompt in prompts]
        clients = [await Client.connect(worker.chain, worker.provider, 1 + n) for n in range(2)]
        assert clients[0].channel.ready.context_rows == CONTEXT_ROWS
        # Two at once: the server drops either's stream for the other.
        assert await asyncio.gather(*map(answer_of, clients, prompts)) == expected[:2]
        # On in the first session, with a window of guesses of which two hold.
        made = expected[2]
        await clients[0].ask(0, prompts[2])
        guesses = [*made[:2], made[0]]
        rows = await clients[0].ask(len(prompts[2]), guesses, ROW_DRAFTED, OUTPUTS_ALL)
        assert [unpack_ids(row.ids)[0] for row in rows[:2]] == made[1:3]
        ack = (await clients[0].seal()).ack.ack
        assert ack.session == clients[0].session
        worker.service.status_file.write(worker.service.status)
        told = read_status(tmp_path / "w")
        assert told is not None
        assert (told["backend"], told["backend_url"], told["state"]) == ("openai", remote.url, "serving")
        for client in clients:
            await client.channel.close()
    kept = [
        path for path in (tmp_path / "w").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert kept == []


async def test_what_is_no_text_is_refused_by_name_and_the_session_goes_on(
    tmp_path: Path, remote: RemoteServer
) -> None:
    async with running_worker(tmp_path / "w", packaged_model(), remote=remote) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        prompt = await prompt_of(worker.slice.engine.current(), "hello")
        half_a_character = [*prompt, 4 + 0xC3]
        refused = await client.refused(0, half_a_character)
        assert refused.reason == REFUSED_ENGINE and "inside a character" in refused.message
        # The control token's name in somebody's words: other tokens here, the control token at the server.
        spoken = await worker.slice.engine.current().tokenize("<|im_end|>")
        assert END not in spoken
        refused = await client.refused(0, [*prompt, *spoken])
        assert refused.reason == REFUSED_ENGINE and "as other tokens" in refused.message
        assert len(await client.ask(0, prompt)) == 1
        await client.channel.close()


async def test_examining_names_a_wrong_key_model_and_file(
    tmp_path: Path, remote: RemoteServer, tiny_model: Path
) -> None:
    async def start(model: Path, server: RemoteServer) -> None:
        engine = await RemoteEngine.start(
            model, server, context_rows=CONTEXT_ROWS, sequences=1, log_path=tmp_path / "engine.log"
        )
        await engine.close()

    with pytest.raises(RemoteKeyRefused, match="Invalid API key"):
        await start(packaged_model(), RemoteServer(remote.url, "guide", "", LIMITS))
    with pytest.raises(RemoteUnfit, match="no model 'oracle', it has 'guide'"):
        await start(packaged_model(), RemoteServer(remote.url, "oracle", KEY, LIMITS))
    with pytest.raises(RemoteUnfit):
        await start(tiny_model, remote)
    await start(packaged_model(), remote)
