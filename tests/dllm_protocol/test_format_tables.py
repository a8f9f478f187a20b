"""The documents of the formats say what the code does."""

from __future__ import annotations

import json
import re

import pytest

from dllm_protocol import state_keys
from dllm_protocol.actions import ACTION_NUMBERS
from dllm_protocol.hashing import Tag
from dllm_protocol.refusals import REFUSALS
from tests.conftest import ROOT
from tests.dllm_protocol.format_tables import records_by_name, table
from tests.vectors.record_formats import FILE

FOLDER = ROOT / "docs" / "protocol"
TEXTS = {
    name: (FOLDER / f"{name}.md").read_text("utf-8")
    for name in (
        "encoding",
        "transactions",
        "state",
        "sessions-on-chain",
        "bundle",
        "staking",
        "relay",
        "distribution",
    )
}


@pytest.mark.parametrize("name", sorted(records_by_name()))
def test_every_record_is_documented_field_by_field(name: str) -> None:
    wanted = "\n".join(table(records_by_name()[name]))
    homes = [document for document, text in TEXTS.items() if wanted in text]
    assert len(homes) == 1, f"python -m tests.dllm_protocol.format_tables {name}\n{wanted}"


def test_every_action_number_is_documented() -> None:
    for number, action in ACTION_NUMBERS.items():
        assert f"| {number} | {action.__name__} |" in TEXTS["transactions"]


def test_every_refusal_is_documented() -> None:
    for number, refusal in REFUSALS.items():
        assert f"| {number} | `{refusal.code}` | {refusal.__doc__} |" in TEXTS["transactions"]


def test_every_domain_tag_is_documented() -> None:
    for tag in Tag:
        assert f"`{tag.value.decode()}`" in TEXTS["encoding"]


def test_every_state_key_is_documented() -> None:
    for name, value in vars(state_keys).items():
        if isinstance(value, bytes):
            assert f"| `{value.decode()}` |" in TEXTS["state"]
        elif callable(value) and value.__module__ == state_keys.__name__:
            assert re.search(rf"\| `{name}/", TEXTS["state"]) or name in {"rater_quota"}, name
    assert "| `rater/" in TEXTS["state"]


def test_the_identities_in_the_documents_are_the_recorded_ones() -> None:
    for name, value in json.loads(FILE.read_text("utf-8"))["identities"].items():
        assert f"| {name} | `{value}` |" in TEXTS["encoding"]
