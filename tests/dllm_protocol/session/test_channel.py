"""A client's leg and a provider's leg talk to each other, byte by byte, without a socket between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from dllm_protocol.assignment import leg_entries, route_hash, session_id_of
from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import (
    OUTPUTS_ALL,
    OUTPUTS_LAST,
    OUTPUTS_NONE,
    REFUSED_CANCELLED,
    REFUSED_VOUCHER,
    ROW_DRAFTED,
    ROW_KEPT,
    ROW_PROMPT,
    ROW_REPLAYED,
    Acknowledge,
    Done,
    Frame,
    Goodbye,
    Output,
    Pay,
    Pong,
    Ready,
    Refused,
    Unlinked,
    unpack_ids,
)
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowCounts, RowPrices, client_price, cost_of_rows
from dllm_protocol.records import Route, RouteStage
from dllm_protocol.sealing import SealBroken, SealingKey
from dllm_protocol.session.acceptance import check_voucher, legs_of
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import (
    ClientHandshake,
    ProviderHandshake,
    ProviderNotProved,
    SessionNotProved,
)
from dllm_protocol.session.ledger import (
    WINDOW_DRAFTED_ROWS,
    WINDOW_KEPT_ROWS,
    DepositUsedUp,
    Ledger,
    fresh_state,
)
from dllm_protocol.session.provider import (
    Claimed,
    DecodeRows,
    ProviderLeg,
    Reply,
    Standing,
    StoreVoucher,
    Terms,
    VoucherRefused,
)
from dllm_protocol.signing import SeedSigner
from dllm_protocol.voucher import WindowAck, contradict, sign_ack, sign_voucher

CHAIN = "test-00000000"
PRICES = RowPrices(100, 1000, 1000, 100)


def entry(number: int) -> BookEntry:
    return BookEntry(bytes([number]) * 20, bytes([number + 100]) * 20, 0, 4, PRICES, 8, 500_000)


@dataclass
class Pair:
    """Both ends of one channel."""

    client: ClientLeg
    provider: ProviderLeg
    ledger: Ledger
    service: SeedSigner

    def deliver(self, frame: bytes) -> list[object]:
        """Carry a frame to the provider and collect its orders."""
        return list(self.provider.receive(frame))


def make_pair(
    *, deposit_udllm: int = 10_000_000, standing: Standing | None = None, wrong_session: bool = False
) -> Pair:
    session_key, service, sealing = SeedSigner(b"\1" * 32), SeedSigner(b"\2" * 32), SealingKey(b"\3" * 32)
    account = b"\7" * 20
    session = session_id_of(account, session_key.public_key)
    route = Route(session, "m", b"\4" * 32, 1, b"\5" * 32, b"\6" * 32, (), (RouteStage(entry(1), entry(2)),))
    ledger = Ledger(
        chain_id=CHAIN,
        route=route,
        session_key=session_key,
        deposit_udllm=deposit_udllm,
        community_share_ppm=100_000,
        state=fresh_state(session),
    )
    handshake = ClientHandshake(
        chain_id=CHAIN,
        provider=entry(1).provider,
        session=session,
        service_key=service.public_key,
        sealing_key=sealing.public_key,
        ephemeral_seed=b"\x11" * 32,
    )
    client = ClientLeg(
        handshake,
        provider=entry(1).provider,
        service_key=service.public_key,
        session_key=SeedSigner(b"\x66" * 32) if wrong_session else session_key,
        ledger=ledger,
        transcript_secret=b"\x22" * 32,
    )
    theirs = ProviderHandshake(
        client.first_message, chain_id=CHAIN, provider=entry(1).provider, sealing_key=sealing
    )
    answer, stream, hash_of_handshake = theirs.answer(service, b"\x33" * 32)
    own, role = leg_entries(route)[entry(1).provider]
    terms = Terms(
        CHAIN,
        session,
        session_key.public_key,
        route_hash(route),
        deposit_udllm,
        100_000,
        own,
        role,
        legs_of(route),
    )
    provider = ProviderLeg(terms, standing or Standing(), stream, hash_of_handshake, service)
    pair = Pair(client, provider, ledger, service)
    claim = client.take_hello(answer)
    assert pair.deliver(claim) == [Claimed()]
    (ready,) = client.receive(provider.ready(context_rows=512, held_rows=0, held_digest=bytes(32), top_k=64))
    assert isinstance(ready, Ready)
    return pair


def test_rows_are_served_on_the_strength_of_a_voucher_that_came_before_them() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5, 6, 7], kind=ROW_PROMPT, top_k=4)
    store, decode = pair.deliver(frame)
    assert isinstance(store, StoreVoucher) and isinstance(decode, DecodeRows)
    assert store.standing.voucher is not None and store.standing.voucher.voucher.n == 1
    assert decode.ids == [5, 6, 7]
    messages = pair.client.receive(pair.provider.acknowledge())
    assert isinstance(messages[0], Acknowledge)
    frame = pair.provider.output(decode.request, 2, [9, 8], [1.5, 0.5], 2.0, last=True)
    output, done = pair.client.receive(frame)
    assert isinstance(output, Output) and isinstance(done, Done)
    assert unpack_ids(output.ids) == [9, 8]
    assert pair.ledger.payments_udllm == cost_of_rows(PRICES, pair.ledger.leg(pair.client.provider).promised)
    assert pair.ledger.spent_udllm == client_price(pair.ledger.payments_udllm, 100_000)


def test_a_window_of_kept_rows_needs_one_voucher() -> None:
    pair = make_pair()
    vouchers = 0
    for position in range(WINDOW_KEPT_ROWS * 2):
        _, frame = pair.client.decode(position, [1], kind=ROW_KEPT, top_k=4)
        for order in pair.deliver(frame):
            if isinstance(order, StoreVoucher):
                vouchers += 1
                pair.client.receive(pair.provider.acknowledge())
            elif isinstance(order, DecodeRows):
                pair.client.receive(pair.provider.output(order.request, position, [1], [0.0], 0.0, last=True))
    assert vouchers == 2


def test_the_turn_is_sealed_so_that_the_ack_covers_its_last_row() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    _, decode = pair.deliver(frame)
    pair.client.receive(pair.provider.acknowledge())
    assert isinstance(decode, DecodeRows)
    pair.client.receive(pair.provider.output(decode.request, 0, [9], [1.0], 1.0, last=True))
    final = pair.client.seal_turn()
    assert final is not None
    pair.deliver(final)
    pair.client.receive(pair.provider.acknowledge())
    (ack,) = pair.ledger.state.acks
    assert ack.ack.n == pair.ledger.state.n == 2
    assert ack.ack.transcript == pair.client.transcript.head
    assert ack.ack.outputs == pair.client.transcript.outputs
    assert pair.client.seal_turn() is None


def test_rows_beyond_the_voucher_are_refused_and_do_not_count() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    pair.deliver(frame)
    pair.client.receive(pair.provider.acknowledge())
    # A client that forgets to pay: its ledger believes more was promised than the voucher says.
    leg = pair.ledger.leg(pair.client.provider)
    pair.ledger._put(
        type(leg)(leg.provider, leg.promised.plus(RowCounts(10, 0, 0, 0)), leg.used, leg.acked, leg.most)
    )
    _, frame = pair.client.decode(1, [5, 6], kind=ROW_PROMPT, top_k=4)
    (reply,) = pair.deliver(frame)
    assert isinstance(reply, Reply)
    (refused,) = pair.client.receive(pair.provider.reply(reply))
    assert isinstance(refused, Refused) and refused.reason == REFUSED_VOUCHER
    assert "3 rows in all, vouchers cover 1" in refused.message
    assert pair.provider.standing.served.total == 1


@pytest.mark.parametrize("kind", [ROW_PROMPT, ROW_REPLAYED])
def test_a_row_whose_logits_are_given_is_a_kept_one_whatever_it_is_called(kind: int) -> None:
    # A client that calls every token a prompt would else pay the cheapest price for a whole answer.
    pair = make_pair()
    for position in range(3):
        _, frame = pair.client.decode(position, [1], kind=kind, top_k=4)
        for order in pair.deliver(frame):
            if isinstance(order, StoreVoucher):
                pair.client.receive(pair.provider.acknowledge())
            elif isinstance(order, DecodeRows):
                pair.client.receive(pair.provider.output(order.request, position, [1], [0.0], 0.0, last=True))
    assert (
        pair.provider.standing.served == pair.ledger.leg(pair.client.provider).used == RowCounts(0, 3, 0, 0)
    )


def test_rows_that_were_refused_are_credited_alike_on_both_ends() -> None:
    pair = make_pair()
    request, frame = pair.client.decode(0, [1, 2, 3, 4], kind=ROW_PROMPT, top_k=4)
    _, order = pair.deliver(frame)
    pair.client.receive(pair.provider.acknowledge())
    assert isinstance(order, DecodeRows)
    pair.provider.take_back(order, 2)
    pair.client.receive(pair.provider.refuse(request, REFUSED_VOUCHER, "stopped", 2))
    assert (
        pair.provider.standing.served == pair.ledger.leg(pair.client.provider).used == RowCounts(2, 0, 0, 0)
    )


def test_a_deposit_is_never_promised_twice() -> None:
    pair = make_pair(deposit_udllm=2)
    before = pair.ledger.state
    with pytest.raises(DepositUsedUp) as caught:
        pair.client.decode(0, list(range(200)), kind=ROW_PROMPT, top_k=4)
    promised = RowCounts(199, WINDOW_KEPT_ROWS, 0, 0)  # the last row's logits make it a kept one
    assert caught.value.needed_udllm == client_price(cost_of_rows(PRICES, promised), 100_000)
    assert pair.ledger.state == before


def test_a_stranger_cannot_claim_a_session() -> None:
    with pytest.raises(SessionNotProved):
        make_pair(wrong_session=True)


def test_somebody_else_cannot_answer_for_a_provider() -> None:
    pair = make_pair()
    sealing, impostor = SealingKey(b"\3" * 32), SeedSigner(b"\x55" * 32)
    handshake = ClientHandshake(
        chain_id=CHAIN,
        provider=entry(1).provider,
        session=pair.ledger.state.session,
        service_key=pair.service.public_key,
        sealing_key=sealing.public_key,
        ephemeral_seed=b"\x12" * 32,
    )
    theirs = ProviderHandshake(
        handshake.first_message, chain_id=CHAIN, provider=entry(1).provider, sealing_key=sealing
    )
    answer, _, _ = theirs.answer(impostor, b"\x34" * 32)
    with pytest.raises(ProviderNotProved):
        handshake.finish(answer)


def test_a_replayed_frame_does_not_open() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    pair.deliver(frame)
    with pytest.raises(SealBroken):
        pair.deliver(frame)


def test_a_lower_voucher_is_refused_by_the_provider() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    first, _ = pair.deliver(frame)
    pair.client.receive(pair.provider.acknowledge())
    assert isinstance(first, StoreVoucher)
    pair.ledger.state = fresh_state(pair.ledger.state.session)
    _, frame = pair.client.decode(1, [5], kind=ROW_PROMPT, top_k=4)
    with pytest.raises(VoucherRefused, match="voucher 1 comes after voucher 1"):
        pair.deliver(frame)


def test_an_ack_for_outputs_that_were_never_given_is_refused() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    _, decode = pair.deliver(frame)
    assert isinstance(decode, DecodeRows)
    pair.provider.output(decode.request, 0, [9], [1.0], 1.0, last=True)  # never reaches the client
    with pytest.raises(ChannelRefused):
        pair.client.receive(pair.provider.acknowledge())


def test_a_provider_acknowledges_its_own_leg_only() -> None:
    """Signed with its own key it would otherwise stand for the other stage's, whose true ack then came too late."""
    pair, other = make_pair(), entry(2).provider
    pair.ledger.use(other, RowCounts(0, 1, 0, 0), pair.client.transcript.head)
    pair.deliver(pair.client.decode(0, [5], kind=ROW_KEPT, top_k=4)[1])
    voucher = pair.provider.standing.voucher
    assert voucher is not None
    leg = next(leg for leg in voucher.voucher.legs if leg.provider == other)
    ack = WindowAck(
        CHAIN,
        voucher.voucher.session,
        other,
        voucher.voucher.n,
        voucher.voucher.transcript,
        pair.client.transcript.outputs,
        leg.cumulative_udllm,
    )
    with pytest.raises(ChannelRefused, match="the leg of another provider"):
        pair.client.receive(pair.provider._seal(Acknowledge(sign_ack(pair.service, ack))))
    assert pair.ledger.state.acks == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain_id", "test-11111111"),
        ("session", b"o" * 32),
        ("transcript", b"t" * 32),
        ("cumulative_udllm", 1),
    ],
)
def test_an_ack_for_another_session_or_of_another_voucher_ends_the_channel(field: str, value: object) -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, list(range(20)), kind=ROW_PROMPT, top_k=4)
    pair.deliver(frame)
    pair.provider._unacknowledged[0] = replace(pair.provider._unacknowledged[0], **{field: value})  # type: ignore[arg-type]  # any field
    with pytest.raises(ChannelRefused, match="the ack names"):
        pair.client.receive(pair.provider.acknowledge())


def test_an_output_nobody_asked_for_ends_the_channel() -> None:
    pair = make_pair()
    with pytest.raises(ChannelRefused, match="not open"):
        pair.client.receive(pair.provider.output(7, 0, [9], [1.0], 1.0, last=True))


def test_a_failed_leg_stops_at_what_it_acknowledged() -> None:
    pair = make_pair()
    for position in range(WINDOW_KEPT_ROWS + 1):
        _, frame = pair.client.decode(position, [1], kind=ROW_KEPT, top_k=4)
        for order in pair.deliver(frame):
            if isinstance(order, StoreVoucher) and position == 0:
                pair.client.receive(pair.provider.acknowledge())
            elif isinstance(order, DecodeRows) and position < WINDOW_KEPT_ROWS:
                pair.client.receive(pair.provider.output(order.request, position, [1], [0.0], 0.0, last=True))
    pair.ledger.abandon(pair.client.provider)
    standby = entry(2).provider
    voucher = pair.ledger.use(standby, RowCounts(10, 0, 0, 0), bytes(32))
    assert voucher is not None
    by_provider = {leg.provider: leg for leg in voucher.voucher.legs}
    assert by_provider[pair.client.provider].rows.kept == WINDOW_KEPT_ROWS
    assert by_provider[standby].rows.prompt == 10
    assert voucher.voucher.n == 3


def test_each_voucher_is_acknowledged_once_with_what_was_delivered_when_it_came() -> None:
    # Two vouchers before the first ack, an output between the acks: an ack of the newest voucher at the moment of
    # sending would say two things of one number, and the chain would slash an honest provider for it.
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    _, decode = pair.deliver(frame)
    assert isinstance(decode, DecodeRows)
    voucher = pair.ledger.state.last_voucher
    assert voucher is not None
    again = sign_voucher(
        SeedSigner(b"\1" * 32), replace(voucher.voucher, n=2, transcript=pair.client.transcript.head)
    )
    assert [type(order) for order in pair.deliver(pair.client._seal(Pay(again)))] == [StoreVoucher]
    acks = [_ack(pair, pair.provider.acknowledge())]
    _open(pair, pair.provider.output(decode.request, 0, [9], [1.0], 1.0, last=True))
    acks.append(_ack(pair, pair.provider.acknowledge()))
    assert [ack.n for ack in acks] == [1, 2]
    assert acks[0].outputs == acks[1].outputs == pair.client.transcript.outputs
    assert not contradict(*acks)
    with pytest.raises(ChannelRefused, match="no voucher"):
        pair.provider.acknowledge()


def _open(pair: Pair, frame: bytes) -> tuple[Record, ...]:
    """The messages of a frame from the provider, unchecked."""
    assert pair.client._stream is not None
    return Frame.decode(pair.client._stream.open(frame)).messages


def _ack(pair: Pair, frame: bytes) -> WindowAck:
    (message,) = _open(pair, frame)
    assert isinstance(message, Acknowledge)
    return message.ack.ack


def test_a_deposit_that_another_leg_claimed_covers_nothing_here() -> None:
    pair = make_pair(deposit_udllm=1_000)
    pair.provider.terms = replace(pair.provider.terms, claimed=((entry(2).provider, 895),))
    _, frame = pair.client.decode(0, list(range(60)), kind=ROW_PROMPT, top_k=4, outputs=OUTPUTS_NONE)
    with pytest.raises(VoucherRefused, match="1002 udllm"):
        pair.deliver(frame)


def test_a_failed_leg_may_still_claim_what_it_was_promised_and_the_deposit_keeps_room_for_it() -> None:
    pair = make_pair(deposit_udllm=100)
    standby = entry(2).provider
    pair.client.decode(0, list(range(600)), kind=ROW_PROMPT, top_k=4, outputs=OUTPUTS_NONE)
    pair.ledger.abandon(pair.client.provider)
    with pytest.raises(DepositUsedUp) as caught:
        pair.ledger.use(standby, RowCounts(400, 0, 0, 0), bytes(32))
    assert caught.value.needed_udllm == client_price(100, 100_000)
    voucher = pair.ledger.use(standby, RowCounts(300, 0, 0, 0), bytes(32))
    assert voucher is not None
    assert [leg.provider for leg in voucher.voucher.legs] == [standby]


@pytest.mark.parametrize(
    ("position", "ids", "logits"),
    [
        (0, [9], [1.0]),
        (3, [9], [1.0]),
        (2, [9, 9], [1.0, 0.5]),
        (2, [9, 8], [1.0]),
        (2, [], []),
        (2, [9], [float("nan")]),
        (2, [9], [float("-inf")]),
    ],
)
def test_an_output_that_was_not_asked_for_or_makes_no_sense_ends_the_channel(
    position: int, ids: list[int], logits: list[float]
) -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5, 6, 7], kind=ROW_PROMPT, top_k=4)
    pair.deliver(frame)
    frame = pair.provider.output(1, position, ids, logits, 0.0, last=True)
    with pytest.raises(ChannelRefused):
        pair.client.receive(frame)


def test_a_row_is_answered_once() -> None:
    pair = make_pair()
    _, frame = pair.client.decode(0, [5, 6], kind=ROW_PROMPT, top_k=4, outputs=OUTPUTS_ALL)
    pair.deliver(frame)
    for position in (0, 1):
        pair.client.receive(pair.provider.output(1, position, [9], [1.0], 0.0, last=False))
    with pytest.raises(ChannelRefused, match="position 1"):
        pair.client.receive(pair.provider.output(1, 1, [9], [1.0], 0.0, last=False))


def test_a_refusal_is_taken_once_and_for_what_was_asked_only() -> None:
    """Whoever refuses what was never asked could fill the client's memory, or blame others without end."""
    pair = make_pair()
    with pytest.raises(ChannelRefused, match="request 9, which is not open"):
        pair.client.receive(pair.provider.refuse(9, REFUSED_CANCELLED, "", 0))
    pair = make_pair()
    pair.deliver(pair.client.decode(0, [5, 6], kind=ROW_PROMPT, top_k=4)[1])
    pair.client.receive(pair.provider.refuse(1, REFUSED_CANCELLED, "", 0))
    with pytest.raises(ChannelRefused, match="request 1, which is not open"):
        pair.client.receive(pair.provider.refuse(1, REFUSED_CANCELLED, "", 0))


def test_pings_that_overtake_their_answers_are_each_answered() -> None:
    """A stage that is asked every second for a sign of life may be further away than a second."""
    pair = make_pair()
    answers = [order for _ in range(2) for order in pair.deliver(pair.client.ping(1))]
    for answer in answers:
        assert isinstance(answer, Reply)
        assert pair.client.receive(pair.provider.reply(answer)) == (Pong(1, 0),)
    with pytest.raises(ChannelRefused, match="without its ping"):
        pair.client.receive(pair.provider._seal(Pong(1, 0)))


@pytest.mark.parametrize(
    "words",
    ["\N{MUSICAL SYMBOL G CLEF}" * 120, "two\nlines \x1b[2J", "\udcff", ""],
    ids=["long", "escapes", "surrogate", "none"],
)
def test_no_words_of_another_stage_keep_a_provider_from_speaking(words: str) -> None:
    """A reason may quote whoever is at fault: his choice of words must not break the channel of who tells it."""
    pair = make_pair()
    pair.deliver(pair.client.neighbours(1, b"", b"", 0))
    pair.deliver(pair.client.decode(0, [5, 6], kind=ROW_PROMPT, top_k=4)[1])
    (unlinked,) = pair.client.receive(pair.provider.unlinked(1, words))
    (refused,) = pair.client.receive(pair.provider.refuse(1, REFUSED_CANCELLED, words, 0))
    (goodbye,) = pair.client.receive(pair.provider.goodbye(words))
    assert isinstance(unlinked, Unlinked) and isinstance(refused, Refused) and isinstance(goodbye, Goodbye)
    assert unlinked.message == refused.message == goodbye.message
    assert bool(unlinked.message) == bool(words)


def test_an_acknowledgement_that_overtakes_a_reply_breaks_nothing() -> None:
    """A ping that comes while a voucher is written down is answered behind the acknowledgement, and sealed then."""
    pair = make_pair()
    pair.deliver(pair.client.decode(0, [5, 6], kind=ROW_PROMPT, top_k=4)[1])
    (reply,) = pair.deliver(pair.client.ping(1))
    assert isinstance(reply, Reply)
    (ack,) = pair.client.receive(pair.provider.acknowledge())
    assert isinstance(ack, Acknowledge)
    assert pair.client.receive(pair.provider.reply(reply)) == (Pong(1, 0),)


@pytest.mark.parametrize("outputs", [OUTPUTS_LAST, OUTPUTS_ALL])
def test_who_says_done_without_the_logits_breaks_the_protocol(outputs: int) -> None:
    """Else others would be suspected who are still at work on rows that they were asked for."""
    pair = make_pair()
    request, frame = pair.client.decode(0, [5, 6], kind=ROW_PROMPT, top_k=4, outputs=outputs)
    pair.deliver(frame)
    with pytest.raises(ChannelRefused, match="without the logits"):
        pair.client.receive(pair.provider.done(request))


def quiet_row(pair: Pair) -> int:
    """A row that is assumed to be done, because somebody behind has shown it."""
    request, frame = pair.client.decode(0, [5], kind=ROW_KEPT, top_k=4, gives_logits=False, quiet=True)
    pair.deliver(frame)
    pair.client.receive(pair.provider.acknowledge())
    pair.client.assume_done(request)
    return request


def test_a_stages_own_word_on_what_was_assumed_to_be_done_may_come_late() -> None:
    pair = make_pair()
    request = quiet_row(pair)
    (done,) = pair.client.receive(pair.provider.done(request))
    assert done == Done(request)
    with pytest.raises(ChannelRefused, match="does not wait for it"):
        pair.client.receive(pair.provider.done(request))


def test_a_late_refusal_of_what_was_assumed_to_be_done_is_not_paid() -> None:
    """One that was cancelled at all stages, of which the last one had done it."""
    pair = make_pair()
    request = quiet_row(pair)
    provider = pair.client.provider
    assert pair.ledger.leg(provider).used.total == 1
    (refused,) = pair.client.receive(pair.provider.refuse(request, REFUSED_CANCELLED, "cancelled", 0))
    assert isinstance(refused, Refused)
    assert pair.ledger.leg(provider).used.total == 0
    with pytest.raises(ChannelRefused, match="is not open"):
        pair.client.receive(pair.provider.refuse(request, REFUSED_CANCELLED, "cancelled", 0))


def test_what_nobody_asked_for_ends_the_channel() -> None:
    pair = make_pair()
    with pytest.raises(ChannelRefused, match="nobody asked"):
        pair.client.receive(pair.provider.vocabulary_part(0, 9, b"v"))
    pair = make_pair()
    with pytest.raises(ChannelRefused, match="without its ping"):
        pair.client.receive(pair.provider._seal(Pong(7, 0)))
    for generation in (0, 1):
        pair = make_pair()
        with pytest.raises(ChannelRefused, match="nobody asked"):
            pair.client.receive(pair.provider.linked(generation, 0, 0, 0))
        pair = make_pair()
        with pytest.raises(ChannelRefused, match="nobody asked"):
            pair.client.receive(pair.provider.unlinked(generation, "why not"))


def test_a_ledger_that_was_put_back_promises_nothing_more() -> None:
    # Its next voucher would bear a number that the provider knows already.
    pair = make_pair()
    _, frame = pair.client.decode(0, [5], kind=ROW_PROMPT, top_k=4)
    pair.deliver(frame)
    pair.client.ready = None
    pair.ledger.state = fresh_state(pair.ledger.state.session)
    ready = pair.provider.ready(context_rows=512, held_rows=0, held_digest=bytes(32), top_k=64)
    with pytest.raises(ChannelRefused, match="holds voucher 1, ours go up to 0"):
        pair.client.receive(ready)


def test_of_a_drafted_request_the_first_row_is_a_kept_one_and_its_voucher_comes_before_it() -> None:
    pair = make_pair()
    request, frame = pair.client.decode(0, [5, 6, 7, 8], kind=ROW_DRAFTED, top_k=4, outputs=OUTPUTS_ALL)
    store, decode = pair.deliver(frame)
    assert isinstance(store, StoreVoucher) and isinstance(decode, DecodeRows)
    leg = pair.ledger.leg(entry(1).provider)
    assert pair.provider.standing.served == leg.used == RowCounts(0, 1, 3, 0)
    assert leg.promised == RowCounts(0, WINDOW_KEPT_ROWS, WINDOW_DRAFTED_ROWS, 0)
    # Within what was promised the next one needs no voucher.
    _, frame = pair.client.decode(2, [9, 9], kind=ROW_DRAFTED, top_k=4, outputs=OUTPUTS_ALL)
    (second,) = pair.deliver(frame)
    assert isinstance(second, DecodeRows)
    # Of one that is cancelled, both ends count what was decoded, and that alone.
    pair.provider.take_back(second, 1)
    pair.client.receive(pair.provider.acknowledge())
    pair.client.receive(pair.provider.refuse(request + 1, REFUSED_CANCELLED, "cancelled", 1))
    assert pair.provider.standing.served == pair.ledger.leg(entry(1).provider).used == RowCounts(0, 2, 3, 0)


def test_drafted_rows_beyond_the_voucher_are_refused() -> None:
    pair = make_pair()
    pair.deliver(pair.client.decode(0, [5, 6], kind=ROW_DRAFTED, top_k=4, outputs=OUTPUTS_ALL)[1])
    leg = pair.ledger.leg(entry(1).provider)
    # A client whose ledger says that it promised more than its vouchers do.
    generous = replace(leg, promised=replace(leg.promised, drafted=100))
    pair.ledger.state = replace(pair.ledger.state, legs=(generous,))
    (reply,) = pair.deliver(
        pair.client.decode(2, [1] * 20, kind=ROW_DRAFTED, top_k=4, outputs=OUTPUTS_ALL)[1]
    )
    assert isinstance(reply, Reply)
    (refused,) = pair.client.receive(pair.provider.reply(reply))
    assert isinstance(refused, Refused) and refused.reason == REFUSED_VOUCHER


def test_each_stage_may_have_vouchers_on_their_way_before_the_first_is_acknowledged() -> None:
    """Slices of a prompt follow each other through a line: acks of its first stage come behind all their vouchers."""
    session_key, service = SeedSigner(b"\1" * 32), SeedSigner(b"\2" * 32)
    session = session_id_of(b"\7" * 20, session_key.public_key)
    stages = tuple(RouteStage(replace(entry(n), first_layer=n, end_layer=n + 1), None) for n in range(9))
    route = Route(session, "m", b"\4" * 32, 1, b"\5" * 32, b"\6" * 32, (), stages)
    ledger = Ledger(
        chain_id=CHAIN,
        route=route,
        session_key=session_key,
        deposit_udllm=10_000_000,
        community_share_ppm=100_000,
        state=fresh_state(session),
    )
    vouchers = [
        ledger.use(stage.stage.provider, RowCounts(256, 0, 0, 0), bytes(32))
        for _ in range(8)
        for stage in stages
    ]
    first = vouchers[0]
    assert first is not None and ledger.state.n == 72
    (leg,) = first.voucher.legs
    ack = WindowAck(CHAIN, session, leg.provider, 1, bytes(32), bytes(32), leg.cumulative_udllm)
    ledger.take_ack(sign_ack(service, ack), service.public_key)
    assert ledger.leg(leg.provider).acked == RowCounts(256, 0, 0, 0)


def test_who_comes_back_with_a_voucher_that_it_never_acknowledged_goes_on_with_it() -> None:
    """It can claim that one in any case: rows are to be had for it, and no later voucher may cover fewer."""
    pair = make_pair()
    _, frame = pair.client.decode(0, list(range(40)), kind=ROW_PROMPT, top_k=4)
    pair.deliver(frame)
    provider = pair.client.provider
    pair.client.forget_unanswered()
    pair.ledger.abandon(provider)
    assert pair.ledger.leg(provider).promised.total == pair.ledger.leg(provider).used.total == 0
    pair.ledger.resume(provider, 1, RowCounts(0, 0, 0, 0))
    assert pair.ledger.use(provider, RowCounts(39, 1, 0, 0), bytes(32)) is None, "they are paid already"
    voucher = pair.ledger.use(provider, RowCounts(0, 0, 0, 5), bytes(32))
    assert voucher is not None
    check_voucher(voucher, pair.provider.terms, pair.provider.standing)


def test_who_comes_back_with_less_than_it_acknowledged_is_owed_that_and_no_more() -> None:
    pair = make_pair()
    for position in range(2):
        _, frame = pair.client.decode(position, [1], kind=ROW_KEPT, top_k=4)
        for order in pair.deliver(frame):
            if isinstance(order, StoreVoucher):
                pair.client.receive(pair.provider.acknowledge())
    provider = pair.client.provider
    pair.client.forget_unanswered()
    pair.ledger.abandon(provider)
    pair.ledger.resume(provider, 1, RowCounts(0, 1, 0, 0))
    leg = pair.ledger.leg(provider)
    assert (leg.promised.kept, leg.used.kept) == (WINDOW_KEPT_ROWS, 1)
    with pytest.raises(
        ChannelRefused, match=f"{WINDOW_KEPT_ROWS + 1} rows served, vouchers cover {WINDOW_KEPT_ROWS}"
    ):
        pair.ledger.resume(provider, 1, RowCounts(0, WINDOW_KEPT_ROWS + 1, 0, 0))


def test_what_a_leg_may_come_to_is_not_forgotten_as_later_vouchers_say_less() -> None:
    """Each voucher may be claimed: the deposit keeps room for the dearest of what they say, kind by kind."""
    pair = make_pair(deposit_udllm=120)
    provider = pair.client.provider
    pair.client.decode(0, list(range(600)), kind=ROW_PROMPT, top_k=4, outputs=OUTPUTS_NONE)
    pair.client.forget_unanswered()
    pair.ledger.abandon(provider)
    pair.ledger.resume(provider, 0, RowCounts(0, 0, 0, 0))  # it says that the voucher never came
    assert pair.ledger.use(provider, RowCounts(10, 0, 0, 0), bytes(32)) is not None
    with pytest.raises(DepositUsedUp) as caught:
        pair.ledger.use(entry(2).provider, RowCounts(600, 0, 0, 0), bytes(32))
    assert caught.value.needed_udllm == client_price(120, 100_000)
