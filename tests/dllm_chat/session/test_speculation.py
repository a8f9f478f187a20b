"""Answers with guesses are the answers without, whoever dies, lies or loses rows; and each row is paid as it counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from dllm_chat.session.events import Sampling
from dllm_chat.session.leg import LegFailed
from dllm_chat.session.prompt import PromptMaker
from dllm_chat.session.sampler import Sampler
from dllm_chat.session.speculation import Speculation
from dllm_chat.session.turn import Turn
from dllm_chat.session.windows import WindowControl, allowed_in_vain
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.pricing import client_price, cost_of_rows
from dllm_protocol.session.ledger import WINDOW_DRAFTED_ROWS, DepositUsedUp
from tests.dllm_chat.session.providers import (
    PRICES,
    REPEATS,
    SHARE_PPM,
    Provider,
    connect,
    make_ledger,
    never_repeats,
    repeats,
)
from tests.dllm_chat.session.test_turn import GREEDY, QUESTION, Client
from tests.dllm_chat.session.words import VOCABULARY

LONG = replace(GREEDY, max_tokens=1_000)


@dataclass
class Guessing(Client):
    """A client that asks for rows on a guess, on a line that seems long."""

    allowance: int = allowed_in_vain(1_000)
    flies: bool = True
    """Whether the line is known to be long, so that several windows are on their way."""

    async def ask(self, messages: list[ChatMessage] | None = None, known: list[int] | None = None) -> Turn:
        everybody = list(self.providers)

        def clock_s() -> float:  # passes as providers work: a long way for each request, little for each row
            return sum(0.055 * provider.decodes + 0.0005 * provider.rows for provider in everybody)

        leg = connect(self.providers[0], self.ledger, known or [])
        leg._wire.round_trip_s = 0.05 if self.flies else 0.0
        self.turn = Turn(
            leg=leg,
            next_leg=self.next_leg,
            vocabulary=VOCABULARY,
            maker=PromptMaker("chatml", VOCABULARY),
            sampler=Sampler(self.options.sampling, 1),
            options=self.options,
            context_rows=2000,
            speculation=Speculation(WindowControl(PRICES, self.allowance), clock_s),
        )
        async for delta in self.turn.run(messages or QUESTION):
            self.pieces.append(delta.text)
        return self.turn


def editor(number: int = 1, **more: object) -> Provider:
    return Provider(number, model=repeats, **more)  # type: ignore[arg-type]  # fields of Provider


def guessing(*providers: Provider, **more: object) -> Guessing:
    fields = {"options": LONG, **more}
    return Guessing(list(providers), **fields)  # type: ignore[arg-type]  # fields of Guessing


def counts(client: Guessing) -> tuple[int, int]:
    assert client.turn is not None and client.turn.speculation is not None
    return client.turn.speculation.drafted, client.turn.speculation.accepted


async def test_an_edit_of_code_is_the_same_in_far_fewer_requests_and_every_row_is_paid_as_it_counts() -> None:
    plain = Client([editor()], options=LONG)
    whole = await plain.ask()
    assert whole.text == REPEATS
    client = guessing(editor())
    turn = await client.ask()
    assert turn.text == REPEATS and turn.generated == whole.generated and turn.finish_reason == "stop"
    provider = client.providers[0]
    assert provider.decodes < plain.providers[0].decodes / 3
    drafted, accepted = counts(client)
    assert 0 < accepted <= drafted
    leg = client.ledger.leg(provider.provider)
    assert turn.prompt is not None
    # The first row of each window is a kept one, guessed or not; nothing else counts twice.
    assert leg.used.kept + leg.used.drafted == provider.rows - len(turn.prompt.ids) + 1
    assert leg.used == provider.standing.served
    assert leg.promised.drafted - leg.used.drafted < WINDOW_DRAFTED_ROWS
    assert client.ledger.spent_udllm == client_price(cost_of_rows(PRICES, leg.promised), SHARE_PPM)
    assert leg.acked == leg.promised


async def test_prose_is_decoded_row_by_row() -> None:
    plain = Client([Provider(1, model=never_repeats)])
    whole = await plain.ask()
    client = guessing(Provider(1, model=never_repeats), options=GREEDY)
    turn = await client.ask()
    assert turn.generated == whole.generated and len(whole.generated) == 40
    assert client.providers[0].windows == [] and client.ledger.state.legs == plain.ledger.state.legs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("penalty", [1.0, 1.3])
async def test_a_seed_gives_the_same_answer_with_guesses(seed: int, penalty: float) -> None:
    sampling = Sampling(temperature=4.0, min_p=0.0, seed=seed, repetition_penalty=penalty)
    options = replace(LONG, sampling=sampling)
    whole = await Client([editor()], options=options).ask()
    client = guessing(editor(), options=options)
    turn = await client.ask()
    assert turn.generated == whole.generated and turn.text == whole.text
    assert turn.finish_reason == whole.finish_reason


async def test_seeds_that_leave_the_text_meet_windows_too() -> None:
    options = replace(LONG, sampling=Sampling(temperature=1.6, top_p=1.0, min_p=0.0, seed=5))
    client = guessing(editor(), options=options)
    whole = await Client([editor()], options=options).ask()
    turn = await client.ask()
    drafted, accepted = counts(client)
    assert turn.generated == whole.generated != [] and 0 < accepted < drafted


@pytest.mark.parametrize("dies_after", range(0, 60, 3))
async def test_a_provider_that_dies_among_windows_is_replaced_without_repeating_or_losing_text(
    dies_after: int,
) -> None:
    client = guessing(editor(1, dies_after=dies_after), editor(2))
    turn = await client.ask()
    assert turn.text == REPEATS == "".join(client.pieces)
    assert len(client.failures) == 1
    leg = client.ledger.leg(client.providers[0].provider)
    assert leg.used == client.providers[0].standing.served


@pytest.mark.parametrize("garbage_at", [60, 120, 200])
async def test_garbage_in_drafted_rows_is_the_providers_failure_by_name(garbage_at: int) -> None:
    client = guessing(editor(1, garbage_at=garbage_at), editor(2))
    turn = await client.ask()
    assert turn.text == REPEATS
    (failure,) = client.failures
    assert isinstance(failure, LegFailed) and "token 1000000 was given" in failure.message


async def test_garbage_from_everybody_ends_the_answer_with_that_name() -> None:
    client = guessing(editor(1, garbage_at=120))
    with pytest.raises(LegFailed, match="token 1000000 was given"):
        await client.ask()
    assert REPEATS.startswith("".join(client.pieces)) and client.pieces


@pytest.mark.parametrize("loses_rows_at", [50, 55, 60])
async def test_rows_lost_among_windows_are_replayed(loses_rows_at: int) -> None:
    client = guessing(editor(1, loses_rows_at=loses_rows_at))
    turn = await client.ask()
    assert turn.text == REPEATS and not client.failures
    assert client.ledger.leg(client.providers[0].provider).used.replayed > 0


async def test_a_deposit_that_has_no_room_for_guesses_is_not_raised_for_them() -> None:
    whole = await Client([editor()], options=LONG).ask()
    plain_cost = Client([editor()], options=LONG)
    await plain_cost.ask()
    ledger = make_ledger(deposit_udllm=plain_cost.ledger.spent_udllm)
    client = guessing(editor(), ledger=ledger)
    turn = await client.ask()
    assert turn.generated == whole.generated
    assert all(isinstance(failure, DepositUsedUp) for failure in client.failures)
    assert ledger.spent_udllm <= ledger.deposit_udllm


@pytest.mark.parametrize("allowance", [0, 1, 5])
async def test_rows_in_vain_stay_within_the_allowance(allowance: int) -> None:
    client = guessing(editor(), allowance=allowance)
    turn = await client.ask()
    drafted, accepted = counts(client)
    assert turn.text == REPEATS and drafted - accepted <= allowance


async def test_stop_strings_and_limits_end_an_answer_inside_a_window() -> None:
    for limit in (150, 151, 152, 163):
        client = guessing(editor(), options=replace(LONG, max_tokens=limit))
        turn = await client.ask()
        assert turn.finish_reason == "length" and turn.text == REPEATS[:limit]
        provider = client.providers[0]
        assert turn.prompt is not None
        assert len(provider.held) <= len(turn.prompt.ids) + limit - 1, "no row that could not be needed"
    stop = "# area and"
    client = guessing(editor(), options=replace(LONG, stop=(stop,)))
    turn = await client.ask()
    assert turn.finish_reason == "stop" and turn.text == REPEATS[: REPEATS.index(stop)]


async def test_the_next_question_finds_its_rows_behind_guesses_given_up() -> None:
    provider, ledger = editor(), make_ledger()
    # Stopped in mid-window, right behind a wrong guess, the provider holds rows that are no part of the answer.
    client = guessing(provider, ledger=ledger, options=replace(LONG, stop=("def s",)))
    first = await client.ask()
    assert first.prompt is not None
    log = [*first.prompt.ids, *first.generated]
    assert provider.held[: len(log) - 1] == log[:-1] and len(provider.held) > len(log)
    rows = provider.rows
    messages = [*QUESTION, ChatMessage("assistant", first.text), ChatMessage("user", "more?")]
    second = await Client([provider], ledger, LONG).ask(messages, first.leg.held)
    assert second.prompt is not None
    shared = next(at for at, (one, two) in enumerate(zip(log, second.prompt.ids, strict=False)) if one != two)
    assert provider.rows - rows == len(second.prompt.ids) - shared + len(second.generated)
