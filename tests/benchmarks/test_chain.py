"""The chain's benchmarks, made small: what they drive and report, not how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import block_hashes, chain, proofs
from tests.conftest import ROOT


def test_both_chains_and_kvstore_finalise_every_transaction(
    monkeypatch: pytest.MonkeyPatch, cometbft: Path
) -> None:
    assert cometbft.exists()
    for name, value in (("VALIDATORS", 1), ("TRANSFERS_A_ROUND", 40), ("ROUNDS", 1)):
        monkeypatch.setattr(chain, name, value)
    monkeypatch.setattr(chain, "block_results", lambda: iter(()))
    found = {one.name: one for one in chain.run()}
    assert set(found) == {
        "chain/solo",
        "chain/cometbft",
        "chain/solo-node-cpu",
        "chain/cometbft-application-cpu",
        "chain/cometbft-engine-cpu",
    }
    assert found["chain/cometbft"].against_value == found["chain/solo"].against_value > 0


def test_a_block_s_hashes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCOUNTS", 500), ("TRANSFERS", 20), ("ROUNDS", 1), ("BARE_HASHES", 100)):
        monkeypatch.setattr(block_hashes, name, value)
    count, whole, tree = block_hashes.block_results()
    # Three for each of the accounts, and at least one node above them.
    assert 3 * 20 < count.value < 3 * 20 + 20 * 20
    assert whole.value > 0
    assert tree.value > 0


def test_proofs_grow_and_a_light_node_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, value in (("SIZES", (50, 400)), ("SAMPLES", 10), ("HEADERS", 30), ("HEADERS_BEFORE", 20)):
        monkeypatch.setattr(proofs, name, value)
    monkeypatch.setattr(proofs, "ACCOUNTS_A_VERSION", 150)
    found = {one.name: one for one in proofs.run()}
    assert found["proofs/presence-size/400"].value > found["proofs/presence-size/50"].value
    assert found["proofs/light-memory"].value > 0
