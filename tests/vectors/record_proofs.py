"""Records state_proofs.json: proofs that our store gives, and bent ones that nobody may accept.

Run `python -m tests.vectors.record_proofs` after a deliberate change of format, and read the difference. The file is
judged by our verifier and, where Go is, by the Go implementation of ICS-23.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from dllm_protocol.ics23_codec import NonExistenceProof, decode_commitment_proof
from dllm_protocol.jmt import root_of
from full_node.state.store import Store

FILE = Path(__file__).with_name("state_proofs.json")
Case = dict[str, str | None]


def made_states() -> list[dict[bytes, bytes]]:
    """The map at each version: one key, two, many, then some changed, some gone."""
    one = {b"params/": b"genesis"}
    two = one | {b"account/" + bytes(20): b"\x01"}
    many = two | {b"account/" + bytes([number] * 20): b"balance %d" % number for number in range(1, 60)}
    fewer = {key: value for key, value in many.items() if key[-1] % 5 != 3}
    changed = fewer | {key: value + b"0" for key, value in fewer.items() if key[-1] % 7 == 2}
    return [one, two, many, changed]


def _proved(store: Store, states: list[dict[bytes, bytes]], version: int, key: bytes, name: str) -> Case:
    found = store.prove(key, version)
    value = states[version].get(key)
    if found.value != value:
        raise RuntimeError(f"the store says {found.value!r} for {key!r} at {version}, it is {value!r}")
    return {
        "name": name,
        "root": root_of(states[version]).hex(),
        "key": key.hex(),
        "value": None if value is None else value.hex(),
        "proof": found.proof.hex(),
    }


def _accepted(store: Store, states: list[dict[bytes, bytes]]) -> list[Case]:
    account, gone = b"account/" + bytes([7] * 20), b"account/" + bytes([3] * 20)
    cases = [
        _proved(store, states, 0, b"params/", "the only key"),
        _proved(store, states, 0, account, "absence beside the only key"),
        _proved(store, states, 1, b"params/", "one of two keys"),
        _proved(store, states, 2, account, "one of many keys"),
        _proved(store, states, 2, gone, "before it was deleted"),
        _proved(store, states, 3, gone, "after it was deleted"),
        _proved(store, states, 3, b"account/" + bytes([16] * 20), "after it was changed"),
    ]
    wanted = dict.fromkeys(("both neighbours", "only a right neighbour", "only a left neighbour"), 1)
    for number in range(2000):
        case = _proved(store, states, 3, b"missing/%d" % number, "")
        proof = bytes.fromhex(str(case["proof"]))
        name = _neighbours(proof)
        if wanted.get(name, 0):
            wanted[name] -= 1
            cases.append(case | {"name": f"absence, {name}, key {number}"})
        if not any(wanted.values()):
            return cases
    raise RuntimeError(f"no key was found for {wanted}")


def _neighbours(proof: bytes) -> str:
    decoded = decode_commitment_proof(proof)
    assert isinstance(decoded, NonExistenceProof)
    if decoded.left is None:
        return "only a right neighbour"
    return "only a left neighbour" if decoded.right is None else "both neighbours"


def _refused(accepted: list[Case]) -> list[Case]:
    by_name = {str(case["name"]): case for case in accepted}
    present, absent = by_name["one of many keys"], by_name["after it was deleted"]
    proof = bytearray.fromhex(str(present["proof"]))
    proof[-5] ^= 1
    return [
        present | {"name": "another value", "value": b"balance 8".hex()},
        present | {"name": "another key", "key": (b"account/" + bytes([8] * 20)).hex()},
        present | {"name": "another root", "root": bytes(32).hex()},
        present | {"name": "a flipped bit in a sibling", "proof": proof.hex()},
        present | {"name": "presence shown as absence", "value": None},
        absent | {"name": "absence shown as presence", "value": b"balance 3".hex()},
        absent | {"name": "absence at a version where it was present", "root": present["root"]},
        absent | {"name": "absence of a present key", "key": present["key"]},
    ]


def recorded() -> dict[str, Any]:
    """The whole file."""
    states = made_states()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "state.db")
        try:
            before: dict[bytes, bytes] = {}
            for version, state in enumerate(states):
                gone: dict[bytes, bytes | None] = dict.fromkeys(before.keys() - state.keys())
                _, batch = store.put(version, gone | state)
                store.commit(batch, None, meta={}, validator_sets={})
                before = state
            accepted = _accepted(store, states)
        finally:
            store.close()
    return {"accepted": accepted, "refused": _refused(accepted)}


if __name__ == "__main__":
    FILE.write_text(json.dumps(recorded(), indent=1) + "\n", encoding="utf-8")
