"""Tokens a second of a real answer, beside a greedy loop straight on llama.cpp with the same file and threads.

Everything is real and a process of its own: a solo node, a worker with its engine, and the chat client here, which
samples, signs a voucher each sixteen rows and writes it down before it leaves. What counts is steady decoding: from
the first piece of the answer to the last, after session and prompt. The same tokens must come out of both.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.bare_loop import BareLoop
from benchmarks.random_model import hundred_million
from benchmarks.runner import Result
from dllm_chat.config import Config
from dllm_chat.contributing import STATUS_FILE, worker_keys
from dllm_chat.paths import find_paths
from dllm_chat.session.conversation import Conversation
from dllm_chat.session.events import AskOptions, Sampling, TextDelta
from dllm_chat.session.service import ChatService
from dllm_protocol.actions import Transfer
from dllm_protocol.chat_templates import ChatMessage
from local_worker.engine.process import default_threads

NAME = "whole-path"
ROUNDS = 5
TOKENS = 240
_WARM_TOKENS = 8
"""At the start of an answer: the first window's voucher, and caches that the prompt emptied."""
_CONTEXT_ROWS = 1024
_QUESTION = "Tell me, please, how long a piece of string is when nobody measures it."
_SERVING_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question gave."""

    token_s: float
    """Seconds a token, steady."""
    cpu_s: dict[str, float]
    """Seconds of CPU time a token, of each process on the path."""
    prompt: list[int]
    tokens: list[int]


def run() -> Iterator[Result]:
    """Greedy answers against the bare loop, sampled ones too, and what a token costs more in ms."""
    with tempfile.TemporaryDirectory(prefix="dllm-bench-", ignore_cleanup_errors=True) as folder:
        yield from asyncio.run(_measure(Path(folder)))


async def _measure(home: Path) -> list[Result]:
    os.environ["DLLM_LINGER_S"] = "0"
    service = ChatService(find_paths(home), Config(linger_s=0))
    bare = BareLoop(hundred_million(), threads=default_threads(), context_rows=_CONTEXT_ROWS)
    try:
        await service.open(lambda _: None)
        model = await _serve(service, hundred_million())
        greedy = AskOptions(model=model, sampling=Sampling(temperature=0.0), max_tokens=TOKENS)
        sampled = replace(greedy, sampling=Sampling(temperature=0.7, seed=1))
        return await _rounds(service, bare, greedy, sampled)
    finally:
        await service.aclose()
        bare.close()


async def _serve(service: ChatService, path: Path) -> str:
    """Contribute the model; its name once the worker serves it."""
    lease, chain = service.connection.lease, service.chain
    assert lease is not None
    # Registering a new model posts a bond from the worker's own account.
    operator = (await worker_keys(lease.worker_home))["operator"]
    bond_udllm = 2 * service.bundle.genesis.params.model_bond_udllm
    await chain.sender.send(chain.purse, [Transfer(operator, bond_udllm)])
    await service.worker_on(path)
    for _ in range(int(_SERVING_WAIT_S / 0.1)):
        status = await service.worker_status()
        if status.state == "serving":
            return status.model
        if status.problem:
            raise RuntimeError(f"the worker does not serve: {status.problem}")
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the worker did not serve {path.name} within {_SERVING_WAIT_S:g} s")


async def _rounds(
    service: ChatService, bare: BareLoop, greedy: AskOptions, sampled: AskOptions
) -> list[Result]:
    ours: list[Answer] = []
    drawn: list[Answer] = []
    theirs: list[tuple[float, float]] = []
    for number in range(1 + ROUNDS):
        answer = await ask(service, greedy)
        bare_s = _bare(bare, answer)
        other = await ask(service, sampled)
        if number:  # the first round opens the session and fills caches
            ours.append(answer)
            drawn.append(other)
            theirs.append(bare_s)
    loop_s = statistics.median(wall_s for wall_s, _ in theirs)
    loop_cpu_ms = statistics.median(cpu_s for _, cpu_s in theirs) * 1000
    path_s = statistics.median(answer.token_s for answer in ours)
    drawn_s = statistics.median(answer.token_s for answer in drawn)
    peer, one = "bare llama.cpp loop, same file and threads", "one bare token"
    results = [
        Result.of(NAME, 1 / path_s, "tokens/s", peer, 1 / loop_s),
        Result.of(f"{NAME}/sampled", 1 / drawn_s, "tokens/s", peer, 1 / loop_s),
        Result.of(f"{NAME}/overhead", (path_s - loop_s) * 1000, "ms/token", one, loop_s * 1000),
        Result.of(f"{NAME}/sampled-overhead", (drawn_s - loop_s) * 1000, "ms/token", one, loop_s * 1000),
    ]
    for who in ours[0].cpu_s:
        cpu_ms = statistics.median(answer.cpu_s[who] for answer in drawn) * 1000
        results.append(Result.of(f"{NAME}/{who}-cpu", cpu_ms, "ms/token", "CPU of a bare token", loop_cpu_ms))
    return results


async def ask(service: ChatService, options: AskOptions) -> Answer:
    """Have one question answered and time what lies between its first tokens and its last."""
    assert options.model is not None
    processes = _processes(service)
    conversation = Conversation(service.chain, options, options.model, {})
    first, began, cpu_began = 0, 0.0, dict.fromkeys(processes, 0.0)
    last, ended = 0, 0.0
    async for event in conversation.events([ChatMessage("user", _QUESTION)]):
        if not isinstance(event, TextDelta) or conversation.turn is None:
            continue
        last, ended = len(conversation.turn.generated), time.perf_counter()
        if not first and last > _WARM_TOKENS:
            cpu_began = {who: _cpu_s(pid) for who, pid in processes.items()}
            first, began = last, time.perf_counter()
    count = last - first
    if count < TOKENS * 3 // 4:
        raise RuntimeError(f"the answer has {last} tokens, too few to measure")
    cpu_s = {who: (_cpu_s(pid) - cpu_began[who]) / count for who, pid in processes.items()}
    turn = conversation.turn
    assert turn is not None
    assert turn.prompt is not None
    return Answer((ended - began) / count, cpu_s, turn.prompt.ids, turn.generated)


def _processes(service: ChatService) -> dict[str, int]:
    """Process ids of client, worker and engine, where the system tells CPU times of others (Linux)."""
    lease = service.connection.lease
    if lease is None or not Path("/proc/self/schedstat").exists():
        return {}
    worker = int(json.loads((lease.worker_home / STATUS_FILE).read_text())["pid"])
    engine = int(Path(f"/proc/{worker}/task/{worker}/children").read_text().split()[0])
    return {"client": os.getpid(), "worker": worker, "engine": engine}


def _cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads, seconds."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def _bare(bare: BareLoop, answer: Answer) -> tuple[float, float]:
    """The same answer from the bare loop: seconds and seconds of CPU time a token."""
    first = bare.start(answer.prompt)
    started, cpu_started = time.perf_counter(), time.process_time()
    rest = bare.greedy(first, len(answer.prompt), len(answer.tokens) - 1)
    token_s = (time.perf_counter() - started) / len(rest)
    cpu_s = (time.process_time() - cpu_started) / len(rest)
    if [first, *rest] != answer.tokens:
        raise RuntimeError("the path and the bare loop do not say the same")
    return token_s, cpu_s
