"""A primary that stands still is noticed by the witnesses' heights."""

from __future__ import annotations

import pytest

from light_node.errors import NoWitnessAgrees
from light_node.providers.events import EventKind
from tests.light_node.attacks import lunatic_fork
from tests.light_node.conftest import MakeClient
from tests.light_node.signed_chain import ChainSource, ManualClock, SignedChain


async def test_a_primary_that_stands_still_is_replaced_and_named(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    one, two = ChainSource(chain, "one"), ChainSource(chain, "two")
    client = make_client(source, [one, two])
    await client.sync()
    source.serve_height = 10
    chain.grow(5)
    clock.advance_s(60)
    began = clock.monotonic_s()
    assert (await client.sync()).hash() == chain.blocks[15].hash()
    assert clock.monotonic_s() == began, "a node that is known to stand still is not waited for"
    assert client.primary in (one, two)
    assert client.witnesses[-1] is source
    stalled = [event for event in client.events if event.kind is EventKind.PRIMARY_STALLED]
    assert [event.message for event in stalled] == [
        f"node stands still at 10, {client.primary.name} is at 15"
    ]
    assert {peer.name: peer.height for peer in client.status().peers} == {"one": 15, "two": 15, "node": 10}


async def test_a_moment_s_lag_is_no_stall(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    client = make_client(source, [ChainSource(chain, "one"), ChainSource(chain, "two")])
    await client.sync()
    source.serve_height = 10
    # The next block is made now, long after the last one: the chain was idle.
    late = clock.now().add_ms(-2000)
    chain.add(lie={"time": late})
    assert (await client.sync()).height == 10
    assert client.primary is source
    assert client.status().problem == ""


async def test_a_lead_that_is_made_up_costs_the_witness_its_place(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    fork = lunatic_fork(chain, 10, signing=("a",))
    for _ in range(3):
        fork.add(signing=("a",))
    liar, honest = ChainSource(chain, "liar"), ChainSource(chain, "honest")
    client = make_client(source, [liar, honest])
    await client.sync()
    liar.chain = fork
    clock.advance_s(60)
    assert (await client.sync()).height == 10
    assert (client.primary, client.witnesses) == (source, (honest,))
    assert f"the trusted block 10 is {chain.blocks[10].hash().hex().upper()}" in client.status().last_refusal


async def test_a_lead_that_nobody_confirms_is_not_believed(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    only = ChainSource(chain, "only")
    client = make_client(source, [only])
    await client.sync()
    source.serve_height = 10
    chain.grow(2)
    clock.advance_s(60)
    with pytest.raises(NoWitnessAgrees) as caught:
        await client.sync()
    assert chain.blocks[12].hash().hex() in caught.value.message
    assert "node is at 10, asked was 12" in caught.value.message
    assert client.status().height == 10
    source.serve_height = None
    assert (await client.sync()).height == 12


async def test_witnesses_are_not_looked_at_all_the_time(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    witness = ChainSource(chain, "witness")
    client = make_client(source, [witness])
    await client.sync()
    witness.headers_asked.clear()
    for _ in range(5):
        clock.advance_s(1)
        await client.sync()
    assert len(witness.headers_asked) == 1
    clock.advance_s(10)
    await client.sync()
    assert len(witness.headers_asked) == 2


async def test_a_witness_from_the_future_does_not_disturb_an_idle_chain(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    liar, honest = ChainSource(chain, "liar"), ChainSource(chain, "honest")
    client = make_client(source, [liar, honest])
    await client.sync()
    fork = chain.forked(11)
    fork.add(lie={"time": clock.now()})
    fork.add(lie={"time": clock.now().add_ms(3_600_000)})
    liar.chain = fork
    clock.advance_s(60)
    assert (await client.sync()).height == 10
    assert "from the future" in client.status().peers[1].problem
