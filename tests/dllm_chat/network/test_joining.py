"""Joining: somebody known vouches, somebody from outside watches, and what is trusted is never cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.network.errors import WitnessNeeded
from dllm_chat.network.fetching import Offered
from dllm_chat.network.joining import Joined, join
from dllm_chat.network.pins import PACKAGED, Pins
from dllm_chat.network.witnesses import own_witnesses
from dllm_chat.session.networks import BundleRefused, joined_network, leave_network
from dllm_protocol.bundle import SignedBundle, fingerprint, sign_bundle
from dllm_protocol.errors import Declined, NetworkUnreachable, VerificationFailed
from dllm_protocol.signing import SeedSigner
from light_node.errors import ForkDetected, RootExpired, RootMismatch
from tests.dllm_chat.network.rig import DAY_S, NODE, PUBLISHER, WITNESS, World, make_world

OTHER = SeedSigner(b"\x0b" * 32)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def nobody(_signed: SignedBundle) -> str:
    raise Declined("there is nobody to ask")


async def joining(
    world: World,
    signed: SignedBundle,
    *,
    typed: str = "",
    named: bool = False,
    pins: Pins = PACKAGED,
    witnesses: tuple[str, ...] = (WITNESS,),
) -> Joined:
    return await join(
        world.paths,
        Offered(signed.encode(), "here", is_named=named),
        ask_fingerprint=nobody,
        typed_fingerprint=typed,
        witnesses=witnesses,
        pins=pins,
        make_source=world.source,
        clock=world.clock,
    )


async def test_the_signer_is_typed_pinned_named_or_known(world: World) -> None:
    signed = world.signed()
    with pytest.raises(Declined):
        await joining(world, signed)
    assert joined_network(world.paths) is None
    assert list(world.paths.networks.glob("*")) == [], "a refusal leaves nothing behind"
    by_code = await joining(world, signed, named=True)
    assert (by_code.confirmed_by, by_code.verified_height) == ("the invitation", 10)
    again = await joining(world, signed)
    assert again.confirmed_by == "an earlier comparison"
    pinned = await joining(world, world.signed(signer=OTHER), pins=Pins({OTHER.public_key: "the club"}))
    assert "the club" in pinned.confirmed_by
    typed = await joining(world, signed, typed=fingerprint(PUBLISHER.public_key).upper().replace(" ", ""))
    assert typed.confirmed_by == "fingerprint"
    assert joined_network(world.paths) == signed


async def test_a_typed_fingerprint_must_fit_whoever_else_vouches(world: World) -> None:
    await joining(world, world.signed(), named=True)
    pins = Pins({PUBLISHER.public_key: "the club"})
    for typed in (fingerprint(OTHER.public_key), "3a5a", "no"):
        with pytest.raises(VerificationFailed) as refused:
            await joining(world, world.signed(), named=True, typed=typed, pins=pins)
        assert fingerprint(PUBLISHER.public_key) in refused.value.message
        assert typed in refused.value.message


async def test_another_signer_of_a_known_chain_is_compared_anew(world: World) -> None:
    await joining(world, world.signed(), named=True)
    with pytest.raises(Declined):
        await joining(world, world.signed(signer=OTHER))


async def test_somebody_from_outside_the_bundle_is_needed(world: World) -> None:
    with pytest.raises(WitnessNeeded):
        await joining(world, world.signed(), named=True, witnesses=())
    with pytest.raises(WitnessNeeded):
        await joining(world, world.signed(), named=True, witnesses=(NODE,))
    chain_id = world.chain.chain_id
    pins = Pins(witnesses={chain_id: (WITNESS,)})
    joined = await joining(world, world.signed(), named=True, witnesses=(), pins=pins)
    assert joined.witnesses == own_witnesses(world.paths, chain_id) == (WITNESS,)
    again = await joining(world, world.signed(), witnesses=())
    assert again.witnesses == (WITNESS,), "it is remembered"


async def test_a_witness_that_shows_another_chain_stops_the_joining(world: World) -> None:
    made_up = world.chain.forked(5)
    made_up.add([b"other"])
    made_up.grow(6)
    world.chains[NODE] = made_up
    with pytest.raises(VerificationFailed):
        await join(
            world.paths,
            Offered(sign_bundle(PUBLISHER, world.bundle(7, made_up)).encode(), "here", is_named=True),
            ask_fingerprint=nobody,
            witnesses=(WITNESS,),
            make_source=world.source,
            clock=world.clock,
        )
    assert joined_network(world.paths) is None


@pytest.mark.parametrize("silent", [True, False])
async def test_the_bundle_s_own_witnesses_do_not_speak_for_the_one_from_outside(
    world: World, silent: bool
) -> None:
    inside = "ws://inside.example:1/websocket"
    made_up = world.chain.forked(5)
    made_up.add([b"other"])
    made_up.grow(10)
    world.chains[NODE] = world.chains[inside] = made_up
    if silent:
        world.silent = {WITNESS}
    # Otherwise it is merely behind a chain that was made longer than the true one.
    bundle = replace(world.bundle(15, made_up), witnesses=(inside,))
    offered = Offered(sign_bundle(PUBLISHER, bundle).encode(), "here", is_named=True)
    with pytest.raises(VerificationFailed):
        await join(
            world.paths,
            offered,
            ask_fingerprint=nobody,
            witnesses=(WITNESS,),
            make_source=world.source,
            clock=world.clock,
        )
    assert joined_network(world.paths) is None


async def test_without_a_network_the_first_joining_is_checked_later(world: World) -> None:
    world.silent = {NODE, WITNESS}
    joined = await joining(world, world.signed(), named=True)
    assert joined.verified_height == 0
    assert NODE in joined.unanswered or WITNESS in joined.unanswered


async def synced(world: World) -> None:
    light = world.open()
    await light.client.sync()
    await light.client.close()


@pytest.mark.parametrize("height", [1, 4, 10, 15])
async def test_a_newer_bundle_of_the_chain_is_linked_to_what_is_trusted(world: World, height: int) -> None:
    await joining(world, world.signed(), named=True)
    await synced(world)
    world.grow(5)
    joined = await joining(world, world.signed(height))
    assert joined.verified_height == 15
    assert joined_network(world.paths) == world.signed(height)


@pytest.mark.parametrize("height", [7, 10, 14])
async def test_a_root_of_a_fork_never_replaces_what_is_trusted(world: World, height: int) -> None:
    await joining(world, world.signed(), named=True)
    await synced(world)
    fork = world.chain.forked(5)
    fork.add([b"other"])
    fork.grow(10)
    world.grow(5)
    forged = sign_bundle(PUBLISHER, world.bundle(height, fork))
    with pytest.raises((RootMismatch, ForkDetected)):
        await joining(world, forged)
    assert joined_network(world.paths) == world.signed(), "the bundle in use stays"


async def test_what_cannot_be_linked_now_is_not_taken(world: World) -> None:
    await joining(world, world.signed(), named=True)
    await synced(world)
    world.grow(5)
    world.silent = {NODE, WITNESS}
    with pytest.raises(NetworkUnreachable):
        await joining(world, world.signed(15))
    world.silent = set()
    world.clock.advance_s(40 * DAY_S)
    with pytest.raises(RootExpired, match=r"\d+ s old"):
        await joining(world, world.signed(15))
    assert joined_network(world.paths) == world.signed()


async def test_another_chain_lies_beside_and_keeps_its_own_trust(world: World, tmp_path: Path) -> None:
    await joining(world, world.signed(), named=True)
    other = make_world(tmp_path)
    other.genesis = replace(other.genesis, nonce=b"\x77" * 32)
    other.chain.chain_id = other.bundle().chain_id
    fresh = type(other.chain)(("a", "b"), other.bundle().chain_id)
    fresh.grow(3)
    other.chain = fresh
    await joining(other, other.signed(), named=True)
    assert joined_network(world.paths) == other.signed()
    assert len([entry for entry in world.paths.networks.iterdir() if entry.is_dir()]) == 2
    leave_network(world.paths)
    await joining(world, world.signed())
    assert joined_network(world.paths) == world.signed()


async def test_damaged_unsigned_and_renamed_bundles_are_refused(world: World) -> None:
    signed = world.signed()
    cases = (
        SignedBundle(signed.bundle, b"", b""),
        replace(signed, signature=bytes(64)),
        replace(signed, signer=OTHER.public_key),
    )
    for bad in cases:
        with pytest.raises(BundleRefused):
            await joining(world, bad, named=True)
    with pytest.raises(BundleRefused):
        await join(world.paths, Offered(b"\x00" * 9, "here", is_named=True), ask_fingerprint=nobody)
