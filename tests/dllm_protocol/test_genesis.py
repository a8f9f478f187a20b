"""Genesis: every difference makes another chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.genesis import Genesis, GenesisAccount, chain_id_of, genesis_hash
from tests.vectors.record_formats import GENESIS


def test_a_chain_is_named_by_its_genesis() -> None:
    assert chain_id_of(GENESIS) == f"vectors-{genesis_hash(GENESIS).hex()[:8]}"
    assert len(chain_id_of(replace(GENESIS, name="n" * 32))) <= 50
    assert Genesis.decode(GENESIS.encode()) == GENESIS


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": bytes(32)},
        {"genesis_time_ms": 1},
        {"address_prefix": "local"},
        {"accounts": (GenesisAccount(b"a" * 20, 1),)},
        {"models": ()},
        {"params": replace(GENESIS.params, epoch_ms=1)},
    ],
)
def test_any_difference_makes_another_chain(change: dict[str, Any]) -> None:
    assert chain_id_of(replace(GENESIS, **change)) != chain_id_of(GENESIS)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"name": "Big"},
        {"name": ""},
        {"address_prefix": "dllm1"},
        {"validators": ()},
        {"nonce": b""},
    ],
)
def test_a_genesis_outside_its_bounds_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedBytes):
        replace(GENESIS, **change).encode()
