"""The transfer benchmark, made small: what it drives and reports, not how fast."""

from __future__ import annotations

import pytest

from benchmarks import solo_transfers


def test_a_small_run_finalises_every_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("SENDERS", 10),
        ("IDLE_ACCOUNTS", 10),
        ("TRANSFERS_A_ROUND", 50),
        ("ROUNDS", 1),
        ("VERIFIED_A_ROUND", 20),
    ):
        monkeypatch.setattr(solo_transfers, name, value)
    against_limit, against_target = solo_transfers.run()
    assert (against_limit.name, against_limit.unit) == ("solo-transfers", "tx/s")
    assert against_limit.value > 0
    assert against_limit.against_value > 0
    assert against_target.against_value == 1000
