"""Guesses over real processes and a long line: the answer, the money and the next turn are those without guesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.far_line import far_workers
from dllm_chat.session.events import QuoteReady, Sampling
from dllm_chat.session.receipts import check_receipt, load_receipt
from dllm_chat.session.service import ChatService
from tests.e2e.machine import GREEDY, Heard, Machine, ask
from tests.e2e.test_failover import kill_the_server, settled, whole

QUESTION = "What is DLLM?"
ROUND_TRIP_S = 0.03
PLAIN = replace(GREEDY, speculation=False)


async def said_before(service: ChatService) -> list[str]:
    """A conversation whose next answer will be the one that it already has."""
    first = (await ask(service, QUESTION, options=PLAIN)).answer
    return [QUESTION, first.reply, QUESTION]


def guessed(heard: Heard) -> int:
    answer = heard.answer
    assert 0 <= answer.accepted_rows <= answer.drafted_rows
    quote = next(event.quote for event in heard.events if isinstance(event, QuoteReady))
    assert answer.drafted_rows - answer.accepted_rows <= quote.drafted_in_vain_rows
    assert answer.cost_udllm <= quote.max_cost_udllm
    return answer.accepted_rows


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0), *(Sampling(temperature=0.4, seed=seed) for seed in (1, 2, 3))],
    ids=["greedy", "seed-1", "seed-2", "seed-3"],
)
async def test_an_answer_is_the_same_with_guesses(shared_machine: Machine, sampling: Sampling) -> None:
    async with settled(shared_machine) as service:
        texts = await said_before(service)
        start = await whole(service)
        async with far_workers(ROUND_TRIP_S):
            plain = await ask(service, *texts, options=replace(PLAIN, sampling=sampling))
            heard = await ask(service, *texts, options=replace(GREEDY, sampling=sampling))
        assert guessed(heard) > 0 or plain.answer.reply != texts[1]
        if not heard.answer.close_calls:  # nearer than rounding, another batch shape may tip the scales
            assert heard.answer.reply == plain.answer.reply and heard.text == plain.text
            assert heard.answer.completion_tokens == plain.answer.completion_tokens
        spent = sum(one.answer.cost_udllm + one.answer.fees_udllm for one in (plain, heard))
        assert start - await whole(service) == spent
        check_receipt(load_receipt(heard.answer.receipt))


@pytest.mark.parametrize("part", ["service", "engine"])
async def test_an_answer_of_windows_goes_on_at_the_standby(shared_machine: Machine, part: str) -> None:
    machine = shared_machine
    async with settled(machine) as service:
        texts = await said_before(service)
        undisturbed = (await ask(service, *texts, options=PLAIN)).answer
    async with settled(machine) as service:
        start = await whole(service)
        which: Callable[[str], int] = machine.worker_pid if part == "service" else machine.engine_pid
        async with far_workers(ROUND_TRIP_S):
            heard = await ask(service, *texts, after=24, then=kill_the_server(machine, which))
        assert len(heard.takeovers) == 1
        assert guessed(heard) > 0
        if not heard.answer.close_calls:
            assert heard.answer.reply == undisturbed.reply == heard.text.strip()
        assert start - await whole(service) == heard.answer.cost_udllm + heard.answer.fees_udllm
        check_receipt(load_receipt(heard.answer.receipt))


async def test_an_answer_stopped_among_windows_costs_what_it_says(shared_machine: Machine) -> None:
    async with settled(shared_machine) as service:
        texts = await said_before(service)
        start = await whole(service)
        async with far_workers(ROUND_TRIP_S):
            heard = await ask(service, *texts, after=30, then=lambda _: service.stop())
        assert heard.answer.finish_reason == "stopped" and heard.text == heard.answer.reply
        assert start - await whole(service) == heard.answer.cost_udllm + heard.answer.fees_udllm
        # The next question on the same session is answered as ever.
        assert (await ask(service, *texts)).answer.reply == texts[1]
