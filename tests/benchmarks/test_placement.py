"""The placement benchmark, made small: what it drives and reports, not how fast."""

from __future__ import annotations

import pytest

from benchmarks import placement


def test_a_small_network_is_measured_beside_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("SEEDS", (1,)),
        ("PROVIDERS", 60),
        ("A_TIME", 10),
        ("LAYERS", 32),
        ("CHURN_EPOCHS", 5),
        ("SWEEPS", 1),
        ("HOLDERS", 50),
        ("ROUNDS", 1),
    ):
        monkeypatch.setattr(placement, name, value)
    found = {one.name.removeprefix("placement/"): one for one in placement.run()}
    assert list(found) == ["settled", "searched", "routed", "churn", "moves", "stages", "decision"]
    assert 0 < found["settled"].ratio <= 1
    assert found["churn"].ratio <= 1
    assert found["routed"].ratio == 1
    assert found["stages"].ratio > 1
    assert found["decision"].value > 0
