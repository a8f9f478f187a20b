"""Joining a network means trusting its publisher's key, compared on another way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle, fingerprint, sign_bundle
from tests.dllm_chat.cli.conftest import Ran
from tests.full_node.state_machine.world import make_genesis, signer

Dllm = Callable[..., Ran]
PUBLISHER = signer("publisher")
BUNDLE = NetworkBundle(
    BUNDLE_VERSION, make_genesis(), 1, b"h" * 32, ("ws://127.0.0.1:1/websocket",), (), (), ""
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "test.bundle"
    path.write_bytes(sign_bundle(PUBLISHER, BUNDLE).encode())
    return path


def test_a_network_is_joined_by_its_fingerprint_and_left_again(dllm: Dllm, file: Path) -> None:
    known = fingerprint(PUBLISHER.public_key)
    ran = dllm("network", "join", file, "--fingerprint", known, "--json")
    assert ran.data["chain_id"] == BUNDLE.chain_id
    assert ran.data["fingerprint"] == known
    assert dllm("network", "leave", "--json").data == {"left": BUNDLE.chain_id}
    assert dllm("network", "leave", "--json").code == 0


def test_spaces_and_case_of_a_fingerprint_do_not_matter(dllm: Dllm, file: Path) -> None:
    typed = fingerprint(PUBLISHER.public_key).replace(" ", "").upper()
    assert dllm("network", "join", file, "--fingerprint", typed).code == 0


def test_another_publisher_is_refused(dllm: Dllm, file: Path) -> None:
    known = fingerprint(signer("somebody else").public_key)
    ran = dllm("network", "join", file, "--fingerprint", known, "--json")
    assert (ran.code, ran.error["code"]) == (8, "E_VERIFY")
    assert known in ran.error["message"]


def test_without_a_person_the_fingerprint_must_be_given(dllm: Dllm, file: Path) -> None:
    ran = dllm("network", "join", file, "--json")
    assert (ran.code, ran.error["code"]) == (9, "E_DECLINED")
    assert "--fingerprint" in ran.error["hint"]


@pytest.mark.parametrize("position", [3, 60, -1])
def test_a_changed_bundle_is_refused(dllm: Dllm, file: Path, position: int) -> None:
    changed = bytearray(file.read_bytes())
    changed[position] ^= 1
    file.write_bytes(changed)
    ran = dllm("network", "join", file, "--fingerprint", fingerprint(PUBLISHER.public_key), "--json")
    assert (ran.code, ran.error["code"]) == (8, "E_BUNDLE")


def test_a_missing_bundle_is_code_6(dllm: Dllm, tmp_path: Path) -> None:
    assert dllm("network", "join", tmp_path / "none", "--json").code == 6


def test_on_a_joined_network_paying_needs_a_wallet(dllm: Dllm, file: Path, tmp_path: Path) -> None:
    dllm("network", "join", file, "--fingerprint", fingerprint(PUBLISHER.public_key))
    ran = dllm("wallet", "send", "local1x", "1", "--yes", "--json")
    assert (ran.code, ran.error["code"]) == (6, "E_NO_WALLET")
    password = tmp_path / "password"
    password.write_text("velvet onion glacier trumpet")
    dllm("wallet", "create", "main", "--seed-out", tmp_path / "seed", "--password-file", password)
    locked = dllm("wallet", "send", "local1x", "1", "--yes", "--json")
    assert (locked.code, locked.error["code"]) == (7, "E_NO_PASSWORD")
    unreachable = dllm("wallet", "send", "local1x", "1", "--yes", "--password-file", password, "--json")
    assert unreachable.code == 3
    assert dllm("wallet", "balance", "--json").code == 3
    assert dllm("wallet", "list", "--json").data["wallets"][0]["accounts"][0]["address"].startswith("local1")
