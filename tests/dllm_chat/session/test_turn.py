"""One answer over real legs: nothing is repeated or lost, whoever dies, and each row is paid as it was quoted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dllm_chat.session.events import AskOptions, Sampling
from dllm_chat.session.leg import LOSSES_MAX, LegFailed, OpenLeg
from dllm_chat.session.prompt import PromptMaker
from dllm_chat.session.sampler import Sampler
from dllm_chat.session.turn import Turn
from dllm_protocol.chat_templates import USER, ChatMessage
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.pricing import NO_ROWS, client_price, cost_of_rows
from dllm_protocol.session.ledger import WINDOW_KEPT_ROWS, DepositUsedUp, Ledger
from dllm_protocol.voucher import FINAL_N
from tests.dllm_chat.session.providers import PRICES, SHARE_PPM, Provider, connect, make_ledger
from tests.dllm_chat.session.words import VOCABULARY

QUESTION = [ChatMessage(USER, "who are you?")]
GREEDY = AskOptions(sampling=Sampling(temperature=0.0), max_tokens=100)


@dataclass
class Client:
    """The least that a turn needs around it: what to do when a leg ends."""

    providers: list[Provider]
    ledger: Ledger = field(default_factory=make_ledger)
    options: AskOptions = GREEDY
    failures: list[LegFailed | DepositUsedUp] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    turn: Turn | None = None
    loses_at_top_up: bool = False

    async def next_leg(self, failure: LegFailed | DepositUsedUp) -> OpenLeg:
        self.failures.append(failure)
        turn = self.turn
        assert turn is not None
        log = [*turn.prompt.ids, *turn.generated] if turn.prompt else []
        if isinstance(failure, DepositUsedUp):
            self.ledger.deposit_udllm *= 2
            if self.loses_at_top_up:
                self.providers[0].held.clear()
            return connect(self.providers[0], self.ledger, log)
        self.ledger.abandon(self.providers.pop(0).provider)
        if not self.providers:
            raise failure
        return connect(self.providers[0], self.ledger, log)

    async def ask(self, messages: list[ChatMessage] | None = None, known: list[int] | None = None) -> Turn:
        self.turn = Turn(
            leg=connect(self.providers[0], self.ledger, known or []),
            next_leg=self.next_leg,
            vocabulary=VOCABULARY,
            maker=PromptMaker("chatml", VOCABULARY),
            sampler=Sampler(self.options.sampling, 1),
            options=self.options,
            context_rows=2000,
        )
        async for delta in self.turn.run(messages or QUESTION):
            self.pieces.append(delta.text)
        return self.turn


async def undisturbed() -> Turn:
    return await Client([Provider(1)]).ask()


async def test_an_answer_ends_at_the_models_end_token_and_every_row_is_paid() -> None:
    client = Client([Provider(1)])
    turn = await client.ask()
    assert turn.finish_reason == "stop" and len(turn.generated) == 40 == len(turn.text)
    assert "".join(client.pieces) == turn.text and not client.failures
    assert turn.prompt is not None
    leg = client.ledger.leg(client.providers[0].provider)
    assert leg.used.prompt == len(turn.prompt.ids) - 1 and leg.used.kept == 41
    assert client.providers[0].rows == len(turn.prompt.ids) + 40
    assert leg.promised.kept - leg.used.kept < WINDOW_KEPT_ROWS
    assert client.ledger.spent_udllm == client_price(cost_of_rows(PRICES, leg.promised), SHARE_PPM)
    assert leg.acked == leg.promised, "the turn's last voucher is acknowledged"


@pytest.mark.parametrize("dies_after", [0, 1, 2, 17, 39])
async def test_a_provider_that_dies_is_replaced_without_repeating_or_losing_text(dies_after: int) -> None:
    whole = await undisturbed()
    first = Provider(1, dies_after=dies_after)
    client = Client([first, Provider(2)])
    turn = await client.ask()
    assert turn.text == whole.text == "".join(client.pieces)
    assert turn.generated == whole.generated
    assert len(client.failures) == 1 and not client.providers[0].dies_after
    dead, alive = client.ledger.leg(first.provider), client.ledger.leg(client.providers[0].provider)
    assert dead.promised == dead.acked, "it is owed what it acknowledged and no more"
    assert turn.prompt is not None
    assert alive.used.prompt == 0
    assert alive.used.replayed == len(turn.prompt.ids) + dies_after - 1, (
        "the last row's logits make it a kept one"
    )
    assert alive.used.kept == 41 - dies_after


async def test_when_all_are_dead_the_last_failure_is_raised_and_the_text_so_far_was_shown() -> None:
    whole = await undisturbed()
    client = Client([Provider(1, dies_after=9), Provider(2, dies_after=5)])
    with pytest.raises(LegFailed, match=r"channel failed|cannot be reached"):
        await client.ask()
    assert len(client.failures) == 2
    assert whole.text.startswith("".join(client.pieces)) and len(client.pieces) >= 9


async def test_a_deposit_used_up_in_mid_answer_repeats_no_row() -> None:
    whole = await undisturbed()
    client = Client([Provider(1)], make_ledger(deposit_udllm=30))
    turn = await client.ask()
    assert turn.text == whole.text
    assert client.failures and all(isinstance(one, DepositUsedUp) for one in client.failures)
    leg = client.ledger.leg(client.providers[0].provider)
    assert leg.used.replayed == 0 and leg.used.kept == 41
    assert client.ledger.spent_udllm <= client.ledger.deposit_udllm


async def test_rows_that_were_lost_while_a_deposit_was_topped_up_are_paid_as_replayed() -> None:
    whole = await undisturbed()
    client = Client([Provider(1)], make_ledger(deposit_udllm=30), loses_at_top_up=True)
    turn = await client.ask()
    assert turn.text == whole.text and client.failures
    used = client.ledger.leg(client.providers[0].provider).used
    assert used.kept == 41 and used.replayed > 0


async def test_rows_that_a_provider_lost_are_replayed_to_it() -> None:
    whole = await undisturbed()
    client = Client([Provider(1, loses_rows_at=12)])
    turn = await client.ask()
    assert turn.text == whole.text and not client.failures
    assert client.ledger.leg(client.providers[0].provider).used.replayed > 0


async def test_a_provider_that_loses_rows_all_the_time_is_given_up() -> None:
    client = Client([Provider(1, forgets=True), Provider(2)])
    turn = await client.ask()
    assert turn.text == (await undisturbed()).text
    (failure,) = client.failures
    assert f"{LOSSES_MAX + 1} times" in str(failure)


async def test_the_next_question_pays_for_new_rows_only() -> None:
    provider = Provider(1)
    ledger = make_ledger()
    first = await Client([provider], ledger).ask()
    assert first.prompt is not None
    log = [*first.prompt.ids, *first.generated]
    rows = provider.rows
    messages = [*QUESTION, ChatMessage("assistant", first.text), ChatMessage(USER, "more?")]
    second = await Client([provider], ledger).ask(messages, log)
    assert second.prompt is not None
    new = len(second.prompt.ids) - len(log)
    assert provider.rows - rows == new + len(second.generated)


async def test_stop_length_and_stop_strings_end_an_answer() -> None:
    whole = await undisturbed()
    limited = await Client([Provider(1)], options=replace(GREEDY, max_tokens=7)).ask()
    assert limited.finish_reason == "length" and limited.text == whole.text[:7]
    word = whole.text[10:13]
    stopped = await Client([Provider(1)], options=replace(GREEDY, stop=(word,))).ask()
    assert stopped.finish_reason == "stop" and stopped.text == whole.text[: whole.text.index(word)]

    client = Client([Provider(1)])
    client.options = replace(GREEDY, max_tokens=50)
    turn = Turn(
        leg=connect(client.providers[0], client.ledger),
        next_leg=client.next_leg,
        vocabulary=VOCABULARY,
        maker=PromptMaker("chatml", VOCABULARY),
        sampler=Sampler(GREEDY.sampling, 1),
        options=GREEDY,
        context_rows=2000,
    )
    async for _ in turn.run(QUESTION):
        if len(turn.generated) == 5:
            turn.stop_asked = True
    assert turn.finish_reason == "stopped" and len(turn.generated) <= 6


async def test_an_answer_ends_where_the_context_ends() -> None:
    client = Client([Provider(1, answer_rows=5_000)], options=replace(GREEDY, max_tokens=5_000))
    turn = await client.ask()
    assert turn.prompt is not None
    assert turn.finish_reason == "length"
    assert len(turn.prompt.ids) + len(turn.generated) == 2001, "the last token needs no row"


async def test_sampling_with_a_seed_gives_the_same_answer_at_the_standby() -> None:
    options = AskOptions(sampling=Sampling(temperature=3.0, seed=11), max_tokens=30)
    whole = await Client([Provider(1)], options=options).ask()
    client = Client([Provider(1, dies_after=8), Provider(2)], options=options)
    assert (await client.ask()).text == whole.text and len(client.failures) == 1


async def test_both_providers_acknowledge_one_final_voucher_and_nothing_comes_after_it() -> None:
    client = Client([Provider(1), Provider(2)])
    await client.ask()
    legs = [connect(provider, client.ledger, secret=b"\x77" * 32) for provider in client.providers]
    for leg in legs:
        await leg.end_session()
    assert client.ledger.is_final
    assert {ack.ack.provider for ack in client.ledger.state.acks if ack.ack.n == FINAL_N} == {
        provider.provider for provider in client.providers
    }
    voucher = client.ledger.state.last_voucher
    assert voucher is not None and voucher.voucher.n == FINAL_N
    # On other channels another final voucher would be needed, and there must not be two.
    other = connect(Provider(2), client.ledger, secret=b"\x78" * 32)
    with pytest.raises(ChannelRefused, match="final voucher was signed"):
        await other.end_session()


async def test_a_session_that_nobody_served_has_a_final_voucher_too() -> None:
    ledger = make_ledger()
    legs = [connect(Provider(number), ledger, secret=b"\x77" * 32) for number in (1, 2)]
    for leg in legs:
        await leg.end_session()
    voucher = ledger.state.last_voucher
    assert voucher is not None
    assert ledger.spent_udllm == 0 and [leg.rows for leg in voucher.voucher.legs] == [NO_ROWS]


async def test_whoever_names_tokens_that_the_model_has_not_is_named_itself() -> None:
    """On a line that is the last stage; the first one has said nothing."""
    liar = Provider(1, model=lambda ids, rows: 1_000_000)
    client = Client([liar, Provider(2)])
    turn = await client.ask()
    assert turn.text == (await undisturbed()).text
    (failure,) = client.failures
    assert isinstance(failure, LegFailed) and failure.provider == liar.provider


@pytest.mark.parametrize(
    ("top_k", "penalty", "asked"), [(100, 1.0, 100), (5, 1.0, 5), (100, 1.1, 100), (5, 1.1, 64)]
)
async def test_as_many_logits_are_asked_for_as_sampling_looks_at(
    top_k: int, penalty: float, asked: int
) -> None:
    provider = Provider(1, top_k=128)
    sampling = Sampling(temperature=1.0, top_k=top_k, repetition_penalty=penalty, seed=1)
    await Client([provider], options=AskOptions(sampling=sampling, max_tokens=3)).ask()
    assert set(provider.asked_top_k) == {asked}
