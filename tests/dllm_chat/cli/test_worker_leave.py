"""A bond comes back: asked for once, paid out when it is free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dllm_chat.cli import worker_leave
from dllm_chat.cli.validators import time_text
from dllm_protocol import state_keys
from dllm_protocol.address import encode_address, provider_id_of
from dllm_protocol.records import ModelSet
from full_node.state_machine.state import read
from tests.dllm_chat.cli.conftest import Ran
from tests.dllm_chat.cli.world_chain import opened_by
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    MODEL,
    PARAMS,
    World,
    address,
    provider_id,
)

Dllm = Callable[..., Ran]
BOND = PARAMS.provider_bond_udllm


def text_of(owner: str) -> str:
    return encode_address("localprov", provider_id(owner))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which bob has a provider that offers a model, and sits at the command line; no worker runs."""
    made = World()
    made.provide("bob")
    monkeypatch.setattr(worker_leave, "paying", opened_by(made, "bob"))
    monkeypatch.setattr(worker_leave, "status_data", lambda: {"running": False})
    return made


def offered(world: World) -> tuple[str, ...]:
    found = read(world.reader, state_keys.offers_of(provider_id("bob")), ModelSet)
    return found.names if found else ()


def test_a_bond_is_taken_back_and_paid_out_when_it_is_free(dllm: Dllm, world: World) -> None:
    assert offered(world) == (MODEL,)
    data = dllm("worker", "leave", "--yes", "--json").data
    free_ms = world.time_ms + PARAMS.unbonding_ms
    assert data | {"tx_hash": ""} == {
        "provider": text_of("bob"),
        "amount_udllm": BOND,
        "paid_out_udllm": 0,
        "withdrawn": [MODEL],
        "release_time_ms": free_ms,
        "fee_udllm": FEE_UDLLM,
        "chain_id": world.chain_id,
        "tx_hash": "",
        "height": world.height,
    }
    assert offered(world) == () and world.provider("bob").bond_udllm == 0

    early = dllm("worker", "leave", "--yes", "--json")
    assert (early.code, early.error["message"]) == (2, f"nothing is free before {time_text(free_ms)}")
    world.block(after_ms=PARAMS.unbonding_ms)
    paid = dllm("worker", "leave", "--yes", "--json").data
    assert (paid["amount_udllm"], paid["paid_out_udllm"], paid["release_time_ms"]) == (0, BOND, 0)
    fees = 3 * FEE_UDLLM  # of its registration and offer, too
    assert world.balance("bob") == FUNDS_UDLLM - fees
    gone = dllm("worker", "leave", "--yes", "--json")
    assert (gone.code, gone.error["code"]) == (6, "E_NOT_FOUND")


def test_people_are_told_when_it_is_free_and_asked_first(dllm: Dllm, world: World) -> None:
    declined = dllm("worker", "leave", "--json")
    assert (declined.code, declined.error["code"]) == (9, "E_DECLINED")
    assert f"withdraw   its offers of {MODEL}" in declined.err and "take back  100 DLLM" in declined.err
    tried = dllm("worker", "leave", "--dry-run", "--json").data
    assert tried["dry_run"] is True and world.provider("bob").bond_udllm == BOND
    ran = dllm("worker", "leave", "--yes")
    assert f"free from {time_text(world.time_ms + PARAMS.unbonding_ms)}" in ran.out
    assert "can be slashed until then" in ran.err


def test_a_worker_that_runs_is_stopped_first(
    dllm: Dllm, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_leave, "status_data", lambda: {"running": True})
    ran = dllm("worker", "leave", "--yes", "--json")
    assert (ran.code, ran.error["hint"]) == (2, "first: dllm worker off")
    assert world.provider("bob").bond_udllm == BOND


def test_one_of_several_providers_is_named(dllm: Dllm, world: World) -> None:
    operator = address("bob's second operator")
    world.do("bob", replace(world.registration("bob"), operator=operator))
    second = provider_id_of(address("bob"), operator)
    unclear = dllm("worker", "leave", "--yes", "--json")
    assert (unclear.code, "2 providers" in unclear.error["message"]) == (2, True)
    named = dllm("worker", "leave", encode_address("localprov", second), "--yes", "--json").data
    assert (named["amount_udllm"], named["withdrawn"]) == (BOND, [])
    assert world.provider("bob").bond_udllm == BOND and offered(world) == (MODEL,)


@pytest.mark.parametrize(("owner", "code"), [("carol", 6), ("bob", 2)])
def test_somebody_elses_provider_and_what_is_none_are_refused(
    dllm: Dllm, world: World, owner: str, code: int
) -> None:
    world.provide("carol")
    named = text_of(owner) if owner == "carol" else encode_address("local", provider_id(owner))
    assert dllm("worker", "leave", named, "--yes", "--json").code == code
    assert world.provider("carol").bond_udllm == world.provider("bob").bond_udllm == BOND
