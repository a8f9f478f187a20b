"""The light client's benchmarks, made small: what they drive and report, not how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import light_adjacent, light_against_cometbft, light_skipping
from dllm_protocol.timestamp import Timestamp
from tests.conftest import ROOT

BEGINS = Timestamp.from_rfc3339("2026-01-01T00:00:00Z")


def test_adjacent_headers_beside_bare_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light_adjacent, "SIGNATURES_A_ROUND", 20)
    monkeypatch.setattr(light_adjacent, "SET_SIZES", (1, 8))
    monkeypatch.setattr(light_adjacent, "ROUNDS", 1)
    assert [one.name for one in light_adjacent.run()] == ["light-adjacent/1", "light-adjacent/8"]


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (3, 3), (4, 3), (8, 6), (128, 86)])
def test_as_many_signatures_as_the_rule_asks_for(size: int, needed: int) -> None:
    assert light_adjacent.signatures_needed(size) == needed


def test_the_made_chain_is_a_chain() -> None:
    chain = light_adjacent.make_chain(5, 3, BEGINS)
    now = BEGINS.add_ms(10 * light_adjacent.BLOCK_MS)
    assert light_adjacent.verified_a_second(chain, now) > 0
    assert len(light_adjacent.signed_messages(chain)) == 4 * 3


def test_skipping_fetches_root_and_tip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(light_skipping, "HEIGHTS", 50)
    (found,) = light_skipping.run()
    assert found.value == 2


def test_both_clients_do_every_sync(monkeypatch: pytest.MonkeyPatch, cometbft: Path) -> None:
    assert cometbft.exists()
    monkeypatch.chdir(ROOT)
    for name, value in (("HEIGHTS", 60), ("ROUNDS", 1), ("TARGETS", 3), ("WALKED", 20)):
        monkeypatch.setattr(light_against_cometbft, name, value)
    names = [one.name.partition("/")[2] for one in light_against_cometbft.run()]
    assert names == ["sync", "following", "walk", "cold"]
