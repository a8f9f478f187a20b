"""An expired root is renewed by two nodes that agree, a person who compares, and hashes that lead back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_chat.network.errors import RootNotAgreed
from dllm_chat.network.open_light import OpenLight
from dllm_chat.network.refreshing import NotLinked, Refreshed, refresh
from dllm_protocol.errors import Declined, NetworkUnreachable, UsageRefused
from dllm_protocol.header import Header
from light_node.errors import RootExpired, RootMismatch
from tests.dllm_chat.network.rig import DAY_S, NODE, WITNESS, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
async def expired(world: World) -> Iterator[OpenLight]:
    """A light node that verified ten blocks and then slept for forty days; the chain has sixteen."""
    before = world.open()
    await before.client.sync()
    before.store.close()
    world.sleep(40 * DAY_S, 6)
    light = world.open()
    with pytest.raises(RootExpired, match=r"\d+ s old"):
        await light.client.sync()
    yield light
    light.store.close()


def agree(header: Header, one: str, other: str) -> None:
    assert {one, other} == {NODE, WITNESS}
    assert header.height > 10


def disagree(_header: Header, _one: str, _other: str) -> None:
    raise Declined("it is another hash there")


async def refreshed(world: World, light: OpenLight, **options: bool | int) -> Refreshed:
    return await refresh(
        light,
        (NODE, WITNESS),
        agree,
        height=int(options.get("height", 0)),
        give_up_link=bool(options.get("give_up_link")),
        make_source=world.source,
    )


async def test_the_new_root_leads_back_to_the_old_one(world: World, expired: OpenLight) -> None:
    done = await refreshed(world, expired)
    assert (done.header.height, done.is_linked) == (16, True)
    assert done.old is not None and done.old.height == 10
    again = world.open()
    assert (await again.client.sync()).height == 16
    again.store.close()


async def test_a_root_of_a_named_height_is_taken(world: World, expired: OpenLight) -> None:
    assert (await refreshed(world, expired, height=12)).header.height == 12


async def test_two_nodes_that_are_not_the_same_are_needed(world: World, expired: OpenLight) -> None:
    for sources in ((), (NODE,), (NODE, NODE), (NODE, "ws://NODE.example.:1/other")):
        with pytest.raises(UsageRefused, match="two different nodes"):
            await refresh(expired, sources, agree, make_source=world.source)


async def test_two_nodes_that_disagree_decide_nothing(world: World, expired: OpenLight) -> None:
    fork = world.chain.forked(12)
    fork.add([b"other"])
    fork.grow(4)
    world.chains[WITNESS] = fork
    with pytest.raises(RootNotAgreed) as refused:
        await refreshed(world, expired)
    assert world.chain.blocks[16].hash().hex() in refused.value.message
    assert fork.blocks[16].hash().hex() in refused.value.message


async def test_a_person_who_does_not_agree_keeps_the_old_trust(world: World, expired: OpenLight) -> None:
    with pytest.raises(Declined):
        await refresh(expired, (NODE, WITNESS), disagree, make_source=world.source)
    latest = expired.store.latest()
    assert latest is not None and latest.height == 10


async def test_nobody_answers(world: World, expired: OpenLight) -> None:
    world.silent = {WITNESS}
    with pytest.raises(NetworkUnreachable):
        await refreshed(world, expired)


async def test_a_chain_that_does_not_lead_back_is_refused_although_both_nodes_show_it(
    world: World, expired: OpenLight
) -> None:
    fork = world.chain.forked(5)
    fork.add([b"made up"])
    fork.grow(4)
    real, world.chain = world.chain, fork
    world.clock.advance_s(0)
    world.sleep(60, 7)
    with pytest.raises(RootMismatch, match="leads back"):
        await refreshed(world, expired)
    world.chain = real
    assert (await refreshed(world, expired)).is_linked


async def test_where_the_headers_between_are_gone_the_link_is_given_up_in_so_many_words(
    world: World, expired: OpenLight
) -> None:
    world.lowest = 12
    with pytest.raises(NotLinked) as refused:
        await refreshed(world, expired)
    assert "--unlinked" in refused.value.hint
    latest = expired.store.latest()
    assert latest is not None and latest.height == 10
    done = await refreshed(world, expired, height=16, give_up_link=True)
    assert (done.header.height, done.is_linked) == (16, False)
    again = world.open()
    assert (await again.client.sync()).height == 16
    again.store.close()
