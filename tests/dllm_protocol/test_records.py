"""State records and their keys."""

from __future__ import annotations

import pytest

from dllm_protocol import records, state_keys
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.records import Account, ModelRecord, ModelSet, Pool, ProviderSet, Reputation, Supply
from tests.vectors.record_formats import MANIFEST, STORED

ID, OTHER = b"\x01" * 20, b"\x02" * 20
SESSION = b"\x03" * 32


@pytest.mark.parametrize(
    "empty",
    [Account(0, 0), Pool(0), Supply(0, 0, 0), ProviderSet(()), ModelSet(()), Reputation(0, 0, 0)],
)
def test_what_is_empty_encodes_to_nothing_and_absence_says_the_same(empty: records.Account) -> None:
    assert empty.encode() == b""
    assert type(empty).decode(b"") == empty


def test_keys_are_paths_of_ascii_and_hex() -> None:
    assert state_keys.account(ID) == b"account/" + b"01" * 20
    assert state_keys.offer_book("a@b", 12) == b"offer_book/a@b/12"
    assert state_keys.offer_list("a@b", 0) == b"offer_list/a@b/0"
    assert state_keys.reputation(ID, "m") == b"reputation/" + b"01" * 20 + b"/m"
    assert state_keys.rater_quota(ID, "m", OTHER) == b"rater/" + b"01" * 20 + b"/m/" + b"02" * 20
    assert state_keys.slashed(ID, SESSION, 7) == b"slashed/" + b"01" * 20 + b"/" + b"03" * 32 + b"/7"


def test_no_two_records_share_a_key() -> None:
    keys = [key for key, _ in STORED]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() for key in keys)


@pytest.mark.parametrize("status", [0, 5])
def test_a_status_is_one_of_its_names(status: int) -> None:
    with pytest.raises(MalformedBytes, match="status"):
        ModelRecord(ID, MANIFEST, 0, status).encode()


def test_balances_stay_below_the_supply_bound() -> None:
    Account((1 << 60) - 1, 0).encode()
    with pytest.raises(MalformedBytes):
        Account(1 << 60, 0).encode()
