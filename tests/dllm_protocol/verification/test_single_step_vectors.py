"""Verdicts of tendermint-rs' recorded verification steps: 41 files, 99 steps.

The cautions of the vectors' README are followed here, not in the product: sets are re-sorted (our ValidatorSet always
is), drift is 1 s, an absent signature's timestamp is normalised, predecessors are not recorded.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol.block import LightBlock
from dllm_protocol.block_json import signed_header_from_json, validator_from_json
from dllm_protocol.timestamp import GO_ZERO_TIME, Timestamp
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import Invalid, NotEnoughTrust, Success, TrustedState, verify

_NAMES = {Success: "SUCCESS", NotEnoughTrust: "NOT_ENOUGH_TRUST", Invalid: "INVALID"}
_DRIFT_NS = 1_000_000_000


def _block_id(value: dict[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {"hash": "", "parts": {"total": 0, "hash": ""}}
    return {"hash": value["hash"], "parts": value["part_set_header"]}


def _signed_header(value: dict[str, Any]) -> Any:
    header = value["header"] | {"last_block_id": _block_id(value["header"]["last_block_id"])}
    recorded = value["commit"]
    commit = {
        "height": recorded["height"],
        "round": recorded["round"],
        "block_id": _block_id(recorded["block_id"]),
        "signatures": [
            one | {"timestamp": GO_ZERO_TIME.to_rfc3339()} if one["block_id_flag"] == 1 else one
            for one in recorded["signatures"] or []
        ],
    }
    return signed_header_from_json({"header": header, "commit": commit})


def _validators(value: dict[str, Any]) -> ValidatorSet:
    members = []
    for one in value["validators"]:
        kept = {key: one[key] for key in ("address", "pub_key", "voting_power")}
        members.append(validator_from_json(kept))
    return ValidatorSet(tuple(members))


@dataclass(frozen=True, slots=True)
class _Step:
    """One recorded step and what we make of it."""

    name: str
    expected: str
    found: str


def _steps(path: Path) -> list[_Step]:
    case = json.loads(path.read_text())
    initial = case["initial"]
    signed = _signed_header(initial["signed_header"])
    trusted = TrustedState(signed.header, _validators(initial["next_validator_set"]))
    options = VerificationOptions(
        "test-chain", int(initial["trusting_period"]), _DRIFT_NS, link_required=False
    )
    found = []
    for number, step in enumerate(case["input"]):
        block = step["block"]
        light = LightBlock(
            _signed_header(block["signed_header"]),
            _validators(block["validator_set"]),
            _validators(block["next_validator_set"]),
        )
        verdict = verify(light, trusted, options, Timestamp.from_rfc3339(step["now"]))
        found.append(_Step(f"{path.name} step {number}", step["verdict"], _NAMES[type(verdict)]))
        if isinstance(verdict, Success):
            trusted = TrustedState.of(light)
    return found


@pytest.fixture(scope="module")
def steps(shared_vectors: Path) -> list[_Step]:
    """Every step of every file, in order."""
    files = sorted((shared_vectors / "tendermint-rs-single-step").glob("*.json"))
    assert len(files) == 41
    return [step for path in files for step in _steps(path)]


@pytest.mark.conformance("tendermint-rs-single-step")
@pytest.mark.parametrize("number", range(99))
def test_every_recorded_step_gets_its_verdict(steps: list[_Step], number: int) -> None:
    step = steps[number]
    assert step.found == step.expected, step.name


def test_the_steps_are_those_that_were_recorded(steps: list[_Step]) -> None:
    counted = Counter(step.expected for step in steps)
    assert counted == {"SUCCESS": 44, "NOT_ENOUGH_TRUST": 42, "INVALID": 13}
