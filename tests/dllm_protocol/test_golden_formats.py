"""The recorded vectors: whoever writes these bytes speaks our formats."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from dllm_protocol.actions import ACTION, ACTION_NUMBERS
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.encoding import Record
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.transaction import Transaction
from dllm_protocol.vocabulary import Vocabulary
from dllm_protocol.voucher import SignedAck, SignedVoucher
from tests.vectors.record_formats import FILE, SERVICE, SESSION_KEY, examples

RECORDED: dict[str, Any] = json.loads(FILE.read_text("utf-8"))

pytestmark = pytest.mark.conformance("own-golden-vectors")


def test_nothing_differs_from_the_record() -> None:
    assert examples() == RECORDED


def test_every_action_and_every_stored_record_has_a_vector() -> None:
    assert [one["type"] for one in RECORDED["actions"]] == [one.__name__ for one in ACTION_NUMBERS.values()]
    kinds = {one["key"].partition("/")[0] for one in RECORDED["state"]}
    assert {"params", "account", "session", "route", "offer_list", "slashed", "rater"} <= kinds


@pytest.mark.parametrize("vector", RECORDED["actions"], ids=lambda vector: vector["type"])
def test_recorded_actions_are_read_and_written(vector: dict[str, str]) -> None:
    record_type = {one.__name__: one for one in ACTION.by_type}[vector["type"]]
    raw = bytes.fromhex(vector["bytes"])
    assert record_type.decode(raw).encode() == raw


@pytest.mark.parametrize("vector", RECORDED["state"], ids=lambda vector: vector["key"][:40])
def test_recorded_state_is_read_and_written(vector: dict[str, str]) -> None:
    home = {"OfferBook": "offer_book", "HolderBook": "holder_book"}.get(vector["type"], "records")
    home = "params" if vector["type"] == "Params" else home
    record_type: type[Record] = getattr(importlib.import_module(f"dllm_protocol.{home}"), vector["type"])
    raw = bytes.fromhex(vector["bytes"])
    assert record_type.decode(raw).encode() == raw


@pytest.mark.parametrize(
    ("name", "record_type"),
    [
        ("transaction", Transaction),
        ("genesis", Genesis),
        ("signed bundle", SignedBundle),
        ("vocabulary", Vocabulary),
        ("signed voucher", SignedVoucher),
        ("signed ack", SignedAck),
    ],
)
def test_recorded_documents_are_read_and_written(name: str, record_type: type[Record]) -> None:
    raw = bytes.fromhex(RECORDED[name])
    assert record_type.decode(raw).encode() == raw


def test_recorded_signatures_fit() -> None:
    assert Transaction.decode(bytes.fromhex(RECORDED["transaction"])).signature_fits
    voucher = SignedVoucher.decode(bytes.fromhex(RECORDED["signed voucher"]))
    assert voucher.signed_by(SESSION_KEY.public_key)
    assert SignedAck.decode(bytes.fromhex(RECORDED["signed ack"])).signed_by(SERVICE.public_key)
    assert SignedBundle.decode(bytes.fromhex(RECORDED["signed bundle"])).signature_fits


def test_the_recorded_chain_id_ends_in_the_genesis_hash() -> None:
    genesis = Genesis.decode(bytes.fromhex(RECORDED["genesis"]))
    assert chain_id_of(genesis) == RECORDED["identities"]["chain id"]
    assert RECORDED["identities"]["genesis hash"].startswith(chain_id_of(genesis).partition("-")[2])
