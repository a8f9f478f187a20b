"""What an account has locked behind providers and models is seen, and by nobody else as theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dllm_chat.cli import service
from dllm_chat.cli.bonds import Bond, bonds_data, bonds_of, bonds_text
from dllm_chat.session.events import Balance
from dllm_protocol.actions import BondProvider, RegisterModel, UnbondProvider
from dllm_protocol.address import encode_address
from tests.dllm_chat.cli.conftest import Ran
from tests.dllm_chat.cli.world_chain import chain_of
from tests.full_node.state_machine.world import MODEL, PARAMS, World, address, make_manifest, provider_id

BOND, MODEL_BOND = PARAMS.provider_bond_udllm, PARAMS.model_bond_udllm


async def found(world: World, name: str) -> list[Bond]:
    return await bonds_of(chain_of(world, name), world.height)


async def test_bonds_of_providers_and_models_are_found_by_their_owner() -> None:
    world = World()
    world.provide("bob")
    world.do("bob", BondProvider(provider_id("bob"), 7))
    world.do("bob", RegisterModel(make_manifest("bobs-own")))
    provider = encode_address("localprov", provider_id("bob"))
    assert await found(world, "bob") == [
        Bond("provider", provider, BOND + 7),
        Bond("model", "bobs-own", MODEL_BOND),
    ]
    assert await found(world, "erin") == [Bond("model", MODEL, MODEL_BOND)]
    assert await found(world, "alice") == []


async def test_what_is_on_its_way_back_is_still_shown_and_goes_when_it_is_paid_out() -> None:
    world = World()
    world.do("bob", world.registration("bob"))
    world.do("bob", UnbondProvider(provider_id("bob"), BOND))
    free_ms = world.time_ms + PARAMS.unbonding_ms
    (bond,) = await found(world, "bob")
    data = bonds_data([bond])
    assert (data["bonded_udllm"], data["unbonding_udllm"]) == (0, BOND)
    assert data["bonds"][0]["unbonding"] == [{"amount_udllm": BOND, "release_time_ms": free_ms}]
    shown = bonds_text([bond])
    assert shown["bonds"] == []
    assert shown["on its way back"][0].startswith("100 from 20") and bond.name in shown["on its way back"][0]
    world.do("bob", UnbondProvider(provider_id("bob"), 0), after_ms=PARAMS.unbonding_ms)
    assert await found(world, "bob") == []


async def test_many_models_are_looked_at_in_parts() -> None:
    world = World()
    names = [f"model-{number:02}" for number in range(9)]
    for owner in ("bob", "carol"):
        for name in names:
            world.do(owner, RegisterModel(make_manifest(f"{owner}-{name}")))
    assert [one.name for one in await found(world, "carol")] == [f"carol-{name}" for name in names]


def test_the_balance_shows_them(dllm: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.provide("bob")
    monkeypatch.setattr(service, "watching", _watching(world, "bob"))
    data = dllm("wallet", "balance", "--json").data
    assert (data["bonded_udllm"], data["unbonding_udllm"]) == (BOND, 0)
    assert data["bonds"][0] == {
        "kind": "provider",
        "name": encode_address("localprov", provider_id("bob")),
        "bond_udllm": BOND,
        "unbonding": [],
    }
    shown = dllm("wallet", "balance").out
    assert f"bonds              100 behind provider {data['bonds'][0]['name']}" in shown
    assert "on its way back" not in shown
    monkeypatch.setattr(service, "watching", _watching(world, "alice"))
    assert "bonds" not in dllm("wallet", "balance").out


def _watching(world: World, name: str) -> object:
    class Service:
        chain = chain_of(world, name)
        chain_id = world.chain_id

        async def refresh(self) -> None:
            return None

        async def balance(self) -> Balance:
            own = encode_address("local", address(name))
            return Balance(own, world.balance(name), 0, 0, world.height, play_money=False)

    @asynccontextmanager
    async def watching(**_: Any) -> AsyncIterator[Any]:
        yield Service()

    return watching
