"""Our tree's proofs before the Go implementation of ICS-23: it accepts what we accept."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest

from dllm_protocol import state_keys
from dllm_protocol.jmt import root_of
from full_node.state.store import Store
from tests.vectors.record_cometbft import RUNS, file_of
from tests.vectors.record_proofs import FILE
from tools.conformance.go_verifier import GoVerifierMissing, build, judge

pytestmark = pytest.mark.conformance("ics23-go-verifier")
RECORDED: dict[str, list[dict[str, str | None]]] = json.loads(FILE.read_text("utf-8"))
KEYS = 300


@pytest.fixture(scope="module")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled judge."""
    try:
        return build(tmp_path_factory.mktemp("go"))
    except GoVerifierMissing as missing:
        pytest.skip(f"needs Go with cosmos/ics23: {missing}")


def test_it_accepts_the_recorded_proofs(go_verifier: Path) -> None:
    verdicts = judge(go_verifier, RECORDED["accepted"])
    assert dict(zip([case["name"] for case in RECORDED["accepted"]], verdicts, strict=True)) == dict.fromkeys(
        (case["name"] for case in RECORDED["accepted"]), True
    )


def test_it_refuses_the_bent_ones(go_verifier: Path) -> None:
    assert not any(judge(go_verifier, RECORDED["refused"]))


@pytest.mark.parametrize("run", RUNS)
def test_it_accepts_what_a_real_network_answered(go_verifier: Path, run: str) -> None:
    recorded = json.loads(file_of(run).read_text("utf-8"))
    absent = state_keys.account(bytes(20)).hex()
    cases: list[dict[str, str | None]] = []
    for name in ("present", "absent"):
        answer = recorded["queries"][name]["response"]
        root = recorded["heights"][int(answer["height"])]["block"]["header"]["app_hash"]
        shown = b64decode(answer["value"]).hex() if answer["value"] else None
        (operation,) = answer["proofOps"]["ops"]
        key = b64decode(answer["key"]).hex() if name == "present" else absent
        cases.append({"root": root, "key": key, "value": shown, "proof": b64decode(operation["data"]).hex()})
    assert judge(go_verifier, cases) == [True, True]


def test_it_accepts_every_key_and_as_many_absences(go_verifier: Path, tmp_path: Path) -> None:
    state = {b"key/%d" % number: b"value %d" % number for number in range(KEYS)}
    store = Store(tmp_path / "state.db")
    try:
        _, batch = store.put(0, state)
        store.commit(batch, None, meta={}, validator_sets={})
        asked = [*state, *(b"missing/%d" % number for number in range(KEYS))]
        cases: list[dict[str, str | None]] = []
        for key in asked:
            value, proof = state.get(key), store.prove(key, 0).proof
            shown = None if value is None else value.hex()
            cases.append(
                {"root": root_of(state).hex(), "key": key.hex(), "value": shown, "proof": proof.hex()}
            )
    finally:
        store.close()
    assert judge(go_verifier, cases) == [True] * len(cases)
