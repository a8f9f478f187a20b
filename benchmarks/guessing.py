"""What both benchmarks of speculation share: the same questions with and without guesses, over a long line.

Everything is real and a process of its own, as in `whole_path`; the model is the one in the package. Between client
and worker, bytes wait in a proxy of this process for half a round trip each way (`far_line`).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.far_line import far_workers
from benchmarks.runner import Result
from dllm_chat.config import Config
from dllm_chat.paths import find_paths
from dllm_chat.session.conversation import Conversation
from dllm_chat.session.events import AskOptions, Sampling, TextDelta
from dllm_chat.session.service import ChatService
from dllm_protocol.chat_templates import ASSISTANT, USER, ChatMessage

ROUND_TRIP_S = 0.05
ROUNDS = 3
TOKENS = 200
QUESTIONS = (
    "What is DLLM?",
    "What does an answer cost?",
    "What is a light node?",
    "How do I join a network?",
    "What is a voucher?",
)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer."""

    tokens: list[int]
    text: str
    seconds: float
    """From its first piece to its last."""
    drafted: int
    accepted: int


def measure(name: str, *, repeating: bool, sampling: Sampling) -> Iterator[Result]:
    """Tokens a second with guesses against those without, at a round trip of 50 ms and on loopback as it is.

    Args:
        repeating: each question was asked and answered before in the conversation; else it is asked for the first time.
    """
    with tempfile.TemporaryDirectory(prefix="dllm-bench-", ignore_cleanup_errors=True) as folder:
        yield from asyncio.run(_measure(Path(folder), name, repeating, sampling))


async def _measure(home: Path, name: str, repeating: bool, sampling: Sampling) -> list[Result]:
    os.environ["DLLM_LINGER_S"] = "0"
    service = ChatService(find_paths(home), Config(linger_s=0))
    try:
        await service.open(lambda _: None)
        model = await service.default_model()
        conversations = [await _conversation(service, model, question, repeating) for question in QUESTIONS]
        results = []
        async with far_workers(ROUND_TRIP_S):
            results += await _compare(service, model, name, "", conversations, sampling)
        results += await _compare(service, model, name, "/near", conversations, sampling)
        return results
    finally:
        await service.aclose()


async def _conversation(
    service: ChatService, model: str, question: str, repeating: bool
) -> list[ChatMessage]:
    asked = [ChatMessage(USER, question)]
    if not repeating:
        return asked
    said = await _ask(service, model, asked, Sampling(temperature=0.0), guesses=False)
    return [*asked, ChatMessage(ASSISTANT, said.text), *asked]


async def _compare(
    service: ChatService,
    model: str,
    name: str,
    where: str,
    conversations: Sequence[list[ChatMessage]],
    sampling: Sampling,
) -> list[Result]:
    plain_s: list[float] = []
    guessing_s: list[float] = []
    drafted = accepted = 0
    for number in range(1 + ROUNDS):
        spent_s = {False: 0.0, True: 0.0}
        tokens = {False: 0, True: 0}
        for messages in conversations:
            # Every other round begins with the other one: the first of a pair finds colder caches.
            pair: dict[bool, Said] = {}
            for guesses in (bool(number % 2), not number % 2):
                said = pair[guesses] = await _ask(service, model, messages, sampling, guesses=guesses)
                spent_s[guesses] += said.seconds
                tokens[guesses] += len(said.tokens)
            if pair[True].tokens != pair[False].tokens:
                raise RuntimeError(f"with guesses another answer came to {messages[-1].text!r}")
            drafted += pair[True].drafted
            accepted += pair[True].accepted
        if number:  # the first round opens the session and fills caches
            plain_s.append(spent_s[False] / tokens[False])
            guessing_s.append(spent_s[True] / tokens[True])
    plain, guessing = statistics.median(plain_s), statistics.median(guessing_s)
    results = [Result.of(f"{name}{where}", 1 / guessing, "tokens/s", "the same without guesses", 1 / plain)]
    if drafted:
        results.append(
            Result.of(f"{name}{where}/accepted", accepted, "rows", "rows asked for on a guess", drafted)
        )
    return results


async def _ask(
    service: ChatService, model: str, messages: list[ChatMessage], sampling: Sampling, *, guesses: bool
) -> Said:
    options = AskOptions(model=model, sampling=sampling, max_tokens=TOKENS, speculation=guesses)
    conversation = Conversation(service.chain, options, model, {})
    began = ended = 0.0
    async for event in conversation.events(messages):
        if isinstance(event, TextDelta):
            ended = time.perf_counter()
            began = began or ended
    turn = conversation.turn
    if turn is None:
        raise RuntimeError("nothing was answered")
    speculation = turn.speculation
    counts = (speculation.drafted, speculation.accepted) if speculation else (0, 0)
    return Said(turn.generated, turn.text, ended - began, *counts)
