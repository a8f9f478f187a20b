"""Who takes over when the primary fails, lies or stands still."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dllm_protocol.block import SignedHeader, block_id_of
from dllm_protocol.errors import DllmError
from dllm_protocol.validator_set import ValidatorSet, address_of
from light_node.client import LightClient, PeerRole, TrustOptions, TrustStatus
from light_node.errors import (
    HeaderRefused,
    HeightUnavailable,
    NoWitnessAgrees,
    SourceMalformed,
    SourceTimedOut,
    SourceUnreachable,
)
from light_node.providers.events import EventKind
from light_node.trust_store import TrustStore
from tests.light_node.attacks import lunatic_fork
from tests.light_node.conftest import MakeClient
from tests.light_node.signed_chain import (
    CHAIN_ID,
    ChainSource,
    ManualClock,
    SignedChain,
    forged,
    signed_commit,
    signer,
    validator_set,
)


def kinds(client: LightClient) -> list[EventKind]:
    return [event.kind for event in client.events]


async def test_a_primary_that_does_not_answer_goes_to_the_end(
    make_client: MakeClient, chain: SignedChain
) -> None:
    away, one, two = (ChainSource(chain, name) for name in ("away", "one", "two"))
    away.offline = one.offline = True
    client = make_client(away, [one, two])
    with pytest.raises(NoWitnessAgrees):
        # Nobody vouches for the one node that answers.
        await client.sync()
    assert client.primary is two
    assert client.witnesses == (one, away)
    one.offline = False
    assert (await client.sync()).height == 10
    assert kinds(client)[0] is EventKind.PRIMARY_REPLACED
    assert [peer.role for peer in client.status().peers] == [
        PeerRole.PRIMARY,
        PeerRole.WITNESS,
        PeerRole.WITNESS,
    ]


class Rubbish(ChainSource):
    """Answers with something that is no answer."""

    async def signed_header(self, height: int | None) -> SignedHeader:
        raise SourceMalformed(f"{self.name} sent something that is not JSON")


async def test_a_primary_that_sends_rubbish_is_dropped(make_client: MakeClient, chain: SignedChain) -> None:
    rubbish, one, two = Rubbish(chain, "rubbish"), ChainSource(chain, "one"), ChainSource(chain, "two")
    client = make_client(rubbish, [one, two])
    assert (await client.sync()).height == 10
    assert {client.primary, *client.witnesses} == {one, two}
    assert client.status().peers[-1].role is PeerRole.REMOVED
    assert client.status().last_refusal == "rubbish sent something that is not JSON"


async def test_the_last_witness_does_not_take_the_place_of_a_liar(
    make_client: MakeClient, chain: SignedChain
) -> None:
    rubbish, only = Rubbish(chain, "rubbish"), ChainSource(chain, "only")
    client = make_client(rubbish, [only])
    with pytest.raises(SourceMalformed):
        await client.sync()
    assert (client.primary, client.witnesses) == (rubbish, (only,))


async def test_the_primary_s_own_words_are_heard_when_nobody_does_better(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class Slow(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            raise SourceTimedOut(f"{self.name} did not answer in time")

    gone = ChainSource(chain, "gone")
    gone.offline = True
    client = make_client(Slow(chain, "slow"), [gone, Rubbish(chain, "rubbish")])
    with pytest.raises(SourceTimedOut, match="slow did not answer"):
        await client.sync()
    assert client.witnesses == (gone,)
    assert client.status().state is TrustStatus.OFFLINE
    with pytest.raises(SourceTimedOut):
        await client.verified_header(11)


async def test_a_height_that_only_a_witness_has_is_found(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    one, two = ChainSource(chain, "one"), ChainSource(chain, "two")
    client = make_client(source, [one, two])
    await client.sync()
    chain.grow(1)
    source.serve_height = 10
    assert (await client.verified_header(11)).hash() == chain.blocks[11].hash()
    assert client.primary is not source
    assert source in client.witnesses
    with pytest.raises(HeightUnavailable):
        await client.verified_header(12)


def _changing(heights: int) -> SignedChain:
    made = SignedChain(("v0", "v1", "v2", "v3"))
    for height in range(1, heights + 1):
        made.add(next_names=[f"v{height + offset}" for offset in range(4)])
    return made


class PivotLiar(ChainSource):
    """Shows the true target and forged headers on the way."""

    async def signed_header(self, height: int | None) -> SignedHeader:
        honest = await super().signed_header(height)
        if height is None or height in (1, self.chain.height):
            return honest
        return replace(honest, header=replace(honest.header, app_hash=bytes(32)))


async def test_a_liar_on_the_way_is_replaced_by_a_witness_with_the_same_target(
    store: TrustStore, clock: ManualClock
) -> None:
    chain = _changing(40)
    clock.advance_s(60)
    liar, one, two = PivotLiar(chain, "liar"), ChainSource(chain, "one"), ChainSource(chain, "two")
    root = TrustOptions(1, chain.blocks[1].hash())
    client = LightClient(chain.chain_id, root, store, liar, [one, two], clock=clock)
    assert (await client.sync()).hash() == chain.blocks[40].hash()
    assert {client.primary, *client.witnesses} == {one, two}
    assert "commit block hash: claimed" in client.status().last_refusal


async def test_a_liar_whose_target_nobody_shares_is_asked_no_more(
    store: TrustStore, clock: ManualClock
) -> None:
    chain = _changing(40)
    clock.advance_s(60)
    fork = lunatic_fork(chain, 40)
    liar = PivotLiar(chain, "liar")
    others = [ChainSource(fork, "one"), ChainSource(fork, "two")]
    root = TrustOptions(1, chain.blocks[1].hash())
    client = LightClient(chain.chain_id, root, store, liar, others, clock=clock)
    with pytest.raises(HeaderRefused, match="commit block hash: claimed"):
        await client.sync()
    assert {client.primary, *client.witnesses} == set(others)


class TargetLiar(ChainSource):
    """Shows a made-up newest header, perhaps beyond the end of the chain, and nothing in between."""

    def __init__(self, chain: SignedChain, error: type[DllmError], **lies: object) -> None:
        super().__init__(chain, "liar")
        self.error = error
        self.lies = lies

    async def signed_header(self, height: int | None) -> SignedHeader:
        honest = await super().signed_header(None if height is None else min(height, self.chain.height))
        if height == 1:
            return honest
        if height not in (None, self.lies.get("height", self.chain.height)):
            raise self.error(f"{self.name} shows no header {height}")
        block = forged(self.chain.blocks[self.chain.height], **self.lies)
        names = [f"x{number}" for number in range(4)]
        made_up = replace(block.header, validators_hash=validator_set(names).hash())
        made_up = replace(made_up, next_validators_hash=made_up.validators_hash)
        block = replace(block, header=made_up)
        ordered = {address_of(signer(name).public_key): name for name in names}
        in_order = [ordered[one.address] for one in validator_set(names).validators]
        commit = signed_commit(
            CHAIN_ID, block_id_of(block), made_up.height, in_order, honest.header.time.add_ms(1000)
        )
        return SignedHeader(made_up, commit)

    async def validators(self, height: int) -> ValidatorSet:
        if height < 3:
            return await super().validators(height)
        return validator_set([f"x{number}" for number in range(4)])


@pytest.mark.parametrize("error", [SourceMalformed, SourceTimedOut, HeightUnavailable])
@pytest.mark.parametrize("height", [10, 1000])
async def test_a_made_up_target_that_nothing_leads_to_stops_nobody(
    make_client: MakeClient, chain: SignedChain, error: type[DllmError], height: int
) -> None:
    liar = TargetLiar(chain, error, height=height)
    client = make_client(liar, [ChainSource(chain, "one"), ChainSource(chain, "two")])
    with pytest.raises(error):
        await client.sync()
    assert (await client.sync()).hash() == chain.blocks[10].hash()


async def test_an_invalid_target_beyond_the_end_of_the_chain_stops_nobody(
    make_client: MakeClient, chain: SignedChain
) -> None:
    liar = TargetLiar(chain, SourceMalformed, height=1000, chain_id="another-chain")
    client = make_client(liar, [ChainSource(chain, "one"), ChainSource(chain, "two")])
    with pytest.raises(HeaderRefused, match="claimed another-chain"):
        await client.sync()
    assert (await client.sync()).hash() == chain.blocks[10].hash()
    assert liar not in (client.primary, *client.witnesses)


async def test_a_primary_that_shows_the_future_is_one_of_two_liars(
    make_client: MakeClient, chain: SignedChain, clock: ManualClock
) -> None:
    liar = TargetLiar(chain, SourceMalformed, time=clock.now().add_ms(3_600_000))
    client = make_client(liar, [ChainSource(chain, "one"), ChainSource(chain, "two")])
    with pytest.raises(HeaderRefused, match="from the future"):
        await client.sync()
    assert client.witnesses[-1] is liar
    assert (await client.sync()).hash() == chain.blocks[10].hash()


async def test_an_unsigned_header_at_the_trusted_height_stops_nobody(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    client = make_client(source, [ChainSource(chain, "one"), ChainSource(chain, "two")])
    await client.sync()
    fork = chain.forked(10)
    fork.add(lie={"app_hash": bytes(32)}, signing=())
    source.chain = fork
    assert (await client.sync()).hash() == chain.blocks[10].hash()
    assert source not in (client.primary, *client.witnesses)
    assert "0 of 40 signed" in client.status().last_refusal


async def test_a_primary_that_is_silent_on_the_way_is_replaced(store: TrustStore, clock: ManualClock) -> None:
    chain = _changing(40)
    clock.advance_s(60)

    class Silent(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            if height not in (None, 1, 40):
                raise SourceTimedOut(f"{self.name} does not say")
            return await super().signed_header(height)

    silent, one, two = Silent(chain, "silent"), ChainSource(chain, "one"), ChainSource(chain, "two")
    root = TrustOptions(1, chain.blocks[1].hash())
    client = LightClient(chain.chain_id, root, store, silent, [one, two], clock=clock)
    assert (await client.sync()).hash() == chain.blocks[40].hash()
    assert client.witnesses[-1] is silent


async def test_an_invalid_target_is_said_at_once_and_the_next_question_goes_elsewhere(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    liar = ChainSource(lunatic_fork(chain, 10, signing=("a", "b")), "liar")
    one, two = ChainSource(chain, "one"), ChainSource(chain, "two")
    client = make_client(liar, [one, two])
    with pytest.raises(HeaderRefused, match="power 20 of 40 signed, more than 26 needed") as caught:
        await client.sync()
    assert caught.value.height == 10
    assert (await client.sync()).hash() == chain.blocks[10].hash()
    assert liar not in (client.primary, *client.witnesses)


async def test_our_own_clock_is_nobody_s_fault(
    make_client: MakeClient, chain: SignedChain, clock: ManualClock
) -> None:
    sources = [ChainSource(chain, name) for name in ("node", "one", "two")]
    client = make_client(sources[0], sources[1:])
    clock.advance_s(-3600)
    with pytest.raises(HeaderRefused, match="from the future") as caught:
        await client.sync()
    assert caught.value.hint == "if your own clock is wrong, set it"
    assert (client.primary, *client.witnesses) == tuple(sources)


async def test_a_walk_backwards_goes_on_with_another_node(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class Forgetful(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            if height is not None and height < 5:
                raise SourceUnreachable(f"{self.name} is gone")
            return await super().signed_header(height)

    one, two = ChainSource(chain, "one"), ChainSource(chain, "two")
    forgetful = Forgetful(chain, "forgetful")
    client = make_client(forgetful, [one, two], root_height=8)
    await client.sync()
    assert (await client.verified_header(3)).hash() == chain.blocks[3].hash()
    assert client.witnesses[-1] is forgetful


async def test_two_questions_that_fail_at_once_replace_one_primary(
    make_client: MakeClient, chain: SignedChain
) -> None:
    away, one, two = (ChainSource(chain, name) for name in ("away", "one", "two"))
    client = make_client(away, [one, two])
    await client.sync()
    away.offline = True
    both = [client.ask(lambda source: source.signed_header(3)) for _ in range(2)]
    found = await asyncio.gather(*both)
    assert found == [chain.signed_header(3)] * 2
    assert kinds(client) == [EventKind.PRIMARY_REPLACED]


async def test_closing_reaches_the_removed_too(make_client: MakeClient, chain: SignedChain) -> None:
    rubbish, one, two = Rubbish(chain, "rubbish"), ChainSource(chain, "one"), ChainSource(chain, "two")
    client = make_client(rubbish, [one, two])
    await client.sync()
    await client.close()
    assert all(node.offline for node in (rubbish, one, two))
