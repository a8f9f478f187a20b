"""A worker serves real tokens over real sockets; whoever misbehaves loses the connection and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dllm_protocol.assignment import route_hash
from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import (
    OUTPUTS_ALL,
    OUTPUTS_NONE,
    REFUSED_BUSY,
    REFUSED_CANCELLED,
    REFUSED_CONTEXT,
    REFUSED_REQUEST,
    REFUSED_VOUCHER,
    ROW_KEPT,
    ROW_REPLAYED,
    Done,
    Refused,
    Tokens,
    VocabularyPart,
    unpack_ids,
)
from dllm_protocol.pricing import RowCounts
from dllm_protocol.records import SESSION_CLOSING, RouteStage
from dllm_protocol.session.ledger import fresh_state
from dllm_protocol.session.provider import ProviderLeg
from dllm_protocol.session.transcript import held_digest
from dllm_protocol.signing import SeedSigner
from dllm_protocol.vocabulary import Vocabulary, check_spelling, vocabulary_hash
from light_node.channel.errors import ChannelLost, SaidGoodbye
from light_node.channel.link import Link
from local_worker import sequences, session_host, stage_server
from local_worker.place_in_line import LineTools
from local_worker.session_host import SessionHost
from local_worker.workbench import Workbench
from tests.local_worker.clients import TIMEOUT_MS, Client
from tests.local_worker.standing_still import standing_still
from tests.local_worker.workers import CONTEXT_ROWS, IMPATIENT, RunningWorker, running_worker

PROMPT = [1, 300, 301, 302]


@pytest.fixture
async def worker(tmp_path: Path, tiny_model: Path) -> AsyncIterator[RunningWorker]:
    async with running_worker(tmp_path / "worker", tiny_model) as running:
        yield running


@pytest.fixture
async def client(worker: RunningWorker) -> AsyncIterator[Client]:
    made = await Client.connect(worker.chain, worker.provider, 1)
    yield made
    await made.channel.close()


def ends_in(messages: Sequence[Record]) -> list[Record]:
    """Those that end a request."""
    return [one for one in messages if isinstance(one, Done | Refused)]


async def bystander(worker: RunningWorker, client: Client, position: int) -> None:
    """Another session goes on as if nothing had happened."""
    assert len(await client.stream(position, 305, 3)) == 3
    assert worker.service.status.state == "serving"


async def test_a_prompt_and_its_answer(client: Client) -> None:
    (output,) = await client.ask(0, PROMPT)
    assert output.position == 3 and len(unpack_ids(output.ids)) == 8
    first = await client.stream(4, unpack_ids(output.ids)[0], 20)
    ack = await client.seal()
    assert ack.ack.ack.outputs == client.channel.leg.transcript.outputs
    assert len(first) == 20


async def test_many_rows_give_their_logits_in_order(client: Client) -> None:
    outputs = await client.ask(0, PROMPT, outputs=OUTPUTS_ALL)
    assert [output.position for output in outputs] == [0, 1, 2, 3]
    assert await client.ask(4, [7, 8], outputs=OUTPUTS_NONE) == []


async def test_rows_are_kept_for_the_next_connection(client: Client) -> None:
    await client.ask(0, PROMPT)
    await client.channel.close()
    await client.reconnect()
    assert client.channel.ready.held_rows == 4
    assert client.channel.ready.held_digest == held_digest(PROMPT)
    assert client.channel.ready.served == RowCounts(3, 1, 0, 0)
    assert client.channel.ready.voucher_n == 1
    (output,) = await client.ask(2, [500, 501])
    assert output.position == 3


async def test_the_session_unused_longest_makes_room(
    worker: RunningWorker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "RECENT_S", 0.0)
    await client.ask(0, PROMPT)
    for seed in (2, 3):
        other = await Client.connect(worker.chain, worker.provider, seed)
        await other.ask(0, PROMPT)
        await other.channel.close()
    refused = await client.refused(4, [9])
    # The reason that a client answers with a replay at the same provider.
    assert refused.reason == REFUSED_REQUEST and "0 rows are held" in refused.message
    (output,) = await client.ask(0, [*PROMPT, 9], ROW_REPLAYED)
    assert output.position == 4


async def test_who_is_in_the_middle_of_an_answer_keeps_his_place(
    worker: RunningWorker, client: Client
) -> None:
    others = [await Client.connect(worker.chain, worker.provider, seed) for seed in (2, 3)]
    await client.ask(0, PROMPT)
    await others[0].ask(0, PROMPT)
    refused = await others[1].refused(0, PROMPT)
    assert refused.reason == REFUSED_BUSY
    assert len(await client.stream(4, 305, 2)) == 2
    for other in others:
        await other.channel.close()


async def test_more_rows_than_the_context_are_refused_and_not_charged(client: Client) -> None:
    refused = await client.refused(0, [5] * (CONTEXT_ROWS + 1))
    assert refused.reason == REFUSED_CONTEXT and refused.decoded_rows == 0
    assert client.ledger.leg(client.provider).used.total == 0


async def test_a_token_outside_the_vocabulary_is_refused(client: Client) -> None:
    refused = await client.refused(0, [1_000_000])
    assert refused.reason == REFUSED_REQUEST


async def test_a_cancelled_prompt_counts_what_was_decoded_and_no_more(client: Client) -> None:
    request = await client.send_decode(0, [5] * 400)
    await client.channel.send(client.channel.leg.cancel(request))
    *_, last = await client.answers(request)
    if isinstance(last, Refused):
        assert last.reason == REFUSED_CANCELLED
        assert client.ledger.leg(client.provider).used.prompt == last.decoded_rows <= 400
    else:
        assert isinstance(last, Done)
    position = client.ledger.leg(client.provider).used.prompt
    assert len(await client.ask(position, [6])) == 1


async def test_a_request_that_waits_can_be_cancelled_too(worker: RunningWorker, client: Client) -> None:
    with standing_still(worker.slice.engine.current()):
        long = await client.send_decode(0, [5] * 300)
        waiting = await client.send_decode(300, [5] * 100)
        await client.channel.send(client.channel.leg.cancel(waiting))
        await client.channel.send(client.channel.leg.get_vocabulary(0))
        messages: list[Record] = []
        while not any(isinstance(message, VocabularyPart) for message in messages):
            messages += await client.channel.receive(TIMEOUT_MS)
    while len(ends := ends_in(messages)) < 2:
        messages += await client.channel.receive(TIMEOUT_MS)
    done, refused = ends
    assert isinstance(done, Done) and done.request == long
    assert isinstance(refused, Refused)
    assert (refused.request, refused.reason) == (waiting, REFUSED_CANCELLED)


async def test_text_becomes_tokens_that_spell_it(client: Client) -> None:
    parts = bytearray()
    while True:
        await client.channel.send(client.channel.leg.get_vocabulary(len(parts)))
        (part,) = await client.channel.receive(TIMEOUT_MS)
        assert isinstance(part, VocabularyPart) and part.offset == len(parts)
        parts += part.data
        if len(parts) >= part.total_bytes:
            break
    vocabulary = Vocabulary.decode(bytes(parts))
    record = await client.chain.model("tiny-model")
    assert record is not None and vocabulary_hash(vocabulary) == record.manifest.vocabulary_hash
    texts = [b"hello there", "¿qué? <s>\n".encode()]
    _, frame = client.channel.leg.tokenize(texts)
    await client.channel.send(frame)
    (tokens,) = await client.channel.receive(TIMEOUT_MS)
    assert isinstance(tokens, Tokens)
    for text, packed in zip(texts, tokens.ids, strict=True):
        check_spelling(vocabulary, unpack_ids(packed), text)


async def test_tokenising_is_free_and_therefore_limited(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing comes back, however long it takes.
    monkeypatch.setattr(session_host, "TOKENIZE_BYTES_PER_S", 0.0)
    await client.channel.close()
    await client.reconnect()
    text = b"word " * 40_000
    answers = []
    for _ in range(4):
        request, frame = client.channel.leg.tokenize([text])
        await client.channel.send(frame)
        (answer,) = await client.channel.receive(TIMEOUT_MS)
        answers.append(answer)
    assert isinstance(answers[0], Tokens)
    assert isinstance(answers[-1], Refused) and answers[-1].reason == REFUSED_BUSY
    assert request == answers[-1].request
    assert len(await client.ask(0, PROMPT)) == 1


async def test_a_newer_connection_of_a_session_takes_over(client: Client) -> None:
    await client.ask(0, PROMPT)
    older = client.channel
    await client.reconnect()
    assert client.channel.ready.held_rows == 4
    with pytest.raises(ChannelLost):
        while True:
            await older.receive(TIMEOUT_MS)
    assert len(await client.stream(4, 305, 2)) == 2


async def test_a_deposit_that_grew_covers_more_on_the_same_channel(worker: RunningWorker) -> None:
    key = SeedSigner(b"\x09" * 32)
    session = worker.chain.open_session(worker.provider, key, deposit_udllm=40)
    client = await Client.connect(worker.chain, worker.provider, 9, session=session)
    await client.ask(0, PROMPT)
    worker.chain.change(session, deposit_udllm=10**6)
    await worker.slice.refresh(session)
    client.ledger.deposit_udllm = 10**6
    await client.ask(4, [5] * 300)
    await client.channel.close()


async def test_a_route_that_wants_other_layers_is_not_served_and_the_client_is_told(
    worker: RunningWorker, client: Client
) -> None:
    """It would decode layers that another stage is paid for."""
    session, route = worker.chain.sessions[client.session]
    (stage,) = route.stages
    half = replace(stage.stage, end_layer=1)
    rest = replace(stage.stage, provider=b"o" * 20, first_layer=1)
    longer = replace(route, stages=(RouteStage(half, None), RouteStage(rest, None)))
    worker.chain.sessions[client.session] = (replace(session, route_hash=route_hash(longer)), longer)
    with pytest.raises(SaidGoodbye, match=r"layers \[0, 1\), it has layers \[0, "):
        await client.reconnect()


async def test_a_session_that_is_closing_is_not_served(worker: RunningWorker, client: Client) -> None:
    worker.chain.change(client.session, status=SESSION_CLOSING)
    await worker.slice.refresh(client.session)
    with pytest.raises(ChannelLost):
        while True:
            await client.channel.receive(TIMEOUT_MS)
    with pytest.raises(SaidGoodbye, match="closing"):
        await client.reconnect()


# --- peers that mean no good


async def test_garbage_instead_of_a_hello(worker: RunningWorker, client: Client) -> None:
    for garbage in (b"", b"\0" * 100, bytes(range(256)) * 3):
        async with connect(f"ws://127.0.0.1:{worker.port}", proxy=None) as stranger:
            await stranger.send(garbage)
            with pytest.raises(ConnectionClosed):
                await stranger.recv()
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_a_stranger_with_the_wrong_session_key(worker: RunningWorker, client: Client) -> None:
    with pytest.raises((ChannelLost, SaidGoodbye)):
        await Client.connect(
            worker.chain,
            worker.provider,
            1,
            session=client.session,
            claims_with=SeedSigner(b"\x77" * 32),
        )
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_a_session_that_the_chain_does_not_know(worker: RunningWorker) -> None:
    key = SeedSigner(b"\x0b" * 32)
    session = worker.chain.open_session(worker.provider, key)
    hidden = worker.chain.sessions[session]
    client = await Client.connect(worker.chain, worker.provider, 11, session=session)
    await client.channel.close()
    del worker.chain.sessions[session]
    with pytest.raises(SaidGoodbye, match="no session"):
        await client.reconnect()
    worker.chain.sessions[session] = hidden
    await client.reconnect()
    await client.channel.close()


async def test_garbage_on_a_claimed_channel(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    for frame in (b"\0" * 200,):
        await hostile.channel.send(frame)
    with pytest.raises(ChannelLost, match="does not open"):
        await hostile.channel.receive(TIMEOUT_MS)
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_a_replayed_frame(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    _, frame = hostile.channel.leg.decode(0, PROMPT, kind=ROW_KEPT, top_k=4)
    await hostile.channel.send(frame)
    await hostile.channel.send(frame)
    with pytest.raises(ChannelLost, match="does not open"):
        while True:
            await hostile.channel.receive(TIMEOUT_MS)
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_a_frame_beyond_the_limit(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    await hostile.channel.send(bytes((1 << 20) + 1))
    with pytest.raises(ChannelLost):
        await hostile.channel.receive(TIMEOUT_MS)
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_rows_that_nobody_paid_for(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    await hostile.ask(0, [5])
    leg = hostile.ledger.leg(worker.provider)
    hostile.ledger._put(
        type(leg)(leg.provider, leg.promised.plus(RowCounts(1000, 0, 0, 0)), leg.used, leg.acked, leg.most)
    )
    refused = await hostile.refused(1, [5] * 50)
    assert refused.reason == REFUSED_VOUCHER
    row = await worker.slice.store.row(hostile.session)
    assert row is not None and row.standing.served.total == 0  # stored with the voucher, before its rows
    await hostile.channel.close()
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_a_voucher_with_a_number_that_was_used(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    await hostile.ask(0, [5])
    hostile.ledger.state = fresh_state(hostile.session)
    await hostile.send_decode(1, [5])
    with pytest.raises(ChannelLost, match="voucher 1 comes after voucher 1"):
        while True:
            await hostile.channel.receive(TIMEOUT_MS)
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_a_voucher_beyond_the_deposit(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    hostile.ledger.deposit_udllm = 10**15
    worker.chain.change(hostile.session, deposit_udllm=10)
    await hostile.reconnect()
    await hostile.send_decode(0, [5] * 400)
    with pytest.raises(ChannelLost, match="the deposit is 10"):
        while True:
            await hostile.channel.receive(TIMEOUT_MS)
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_who_connects_and_says_nothing(tmp_path: Path, tiny_model: Path) -> None:
    async with running_worker(tmp_path / "worker", tiny_model, limits=IMPATIENT) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        silent = await connect(f"ws://127.0.0.1:{worker.port}", proxy=None)
        await client.ask(0, PROMPT)
        await bystander(worker, client, 4)
        with pytest.raises(ConnectionClosed):
            await silent.recv()
        await client.channel.close()


async def test_requests_out_of_order_end_the_channel(worker: RunningWorker, client: Client) -> None:
    hostile = await Client.connect(worker.chain, worker.provider, 2)
    await hostile.ask(0, [5])
    hostile.channel.leg._requests = 0
    await hostile.send_decode(1, [5])
    with pytest.raises((ChannelLost, ChannelRefused), match="request 1 came after request 1"):
        while True:
            await hostile.channel.receive(TIMEOUT_MS)
    await client.ask(0, PROMPT)
    await bystander(worker, client, 4)


async def test_more_requests_than_may_wait_are_refused(worker: RunningWorker, client: Client) -> None:
    with standing_still(worker.slice.engine.current()):
        requests = [await client.send_decode(0, [5] * 100)]
        for index in range(20):
            requests.append(await client.send_decode(100 + index, [5], ROW_KEPT))
        outcomes: list[Record] = []
        while not any(isinstance(one, Refused) and one.reason == REFUSED_BUSY for one in outcomes):
            outcomes += ends_in(await client.channel.receive(TIMEOUT_MS))
    while len(outcomes) < len(requests):
        outcomes += ends_in(await client.channel.receive(TIMEOUT_MS))
    assert any(isinstance(one, Done) and one.request == requests[0] for one in outcomes)


async def test_of_many_channels_that_claim_a_session_at_once_one_serves(
    worker: RunningWorker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two that serve side by side would each acknowledge its own voucher of one number: the provider would be slashed.
    hosts: list[SessionHost] = []

    class Noted(SessionHost):
        def __init__(self, leg: ProviderLeg, link: Link, bench: Workbench, tools: LineTools) -> None:
            super().__init__(leg, link, bench, tools)
            hosts.append(self)

    monkeypatch.setattr(stage_server, "SessionHost", Noted)

    async def another(number: int) -> None:
        twin = Client(worker.chain, worker.provider, client.key, client.session, client.ledger, 10 * number)
        with suppress(SaidGoodbye, ChannelLost):
            await twin.reconnect()

    await asyncio.gather(*(another(number) for number in range(1, 9)))
    assert len(hosts) == 8
    assert [host._ended.is_set() for host in hosts].count(False) <= 1
