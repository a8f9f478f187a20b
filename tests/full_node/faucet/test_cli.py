"""`dllm-node faucet` before it serves: its key, and which networks it gives on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllm_protocol.address import address_of, encode_address
from dllm_protocol.bundle import sign_bundle
from full_node.faucet.errors import FaucetRefused
from full_node.faucet.home import FaucetHome, faucet_key, faucet_network, hold_faucet
from tests.dllm_protocol.test_bundle import SIGNER, make_bundle
from tests.full_node.processes import dllm_node


def bundle_file(folder: Path, prefix: str) -> Path:
    path = folder / f"{prefix}.bundle"
    path.write_bytes(sign_bundle(SIGNER, make_bundle(prefix)).encode())
    return path


def test_init_makes_a_key_once_and_prints_whom_to_fund(tmp_path: Path) -> None:
    home, bundle = tmp_path / "faucet", bundle_file(tmp_path, "tdllm")
    first = json.loads(dllm_node("faucet", "--home", home, "--init", "--json").stdout)["data"]
    second = json.loads(dllm_node("faucet", "--home", home, "--init", "--bundle", bundle, "--json").stdout)[
        "data"
    ]
    assert first["account"] == second["account"]
    assert second["address"] == encode_address("tdllm", bytes.fromhex(first["account"]))
    assert FaucetHome(home).key.stat().st_mode & 0o077 == 0
    assert address_of(faucet_key(FaucetHome(home)).public_key).hex() == first["account"]


def test_it_gives_on_no_network_whose_tokens_are_worth_something(tmp_path: Path) -> None:
    done = dllm_node("faucet", "--home", tmp_path / "faucet", "--bundle", bundle_file(tmp_path, "dllm"))
    assert done.returncode == 2
    assert "no test network" in done.stderr


def test_a_folder_stays_with_its_network(tmp_path: Path) -> None:
    home = FaucetHome(tmp_path)
    with pytest.raises(FaucetRefused, match="cannot be read"):
        faucet_network(home, None)
    signed = faucet_network(home, bundle_file(tmp_path, "tdllm"))
    assert faucet_network(home, None) == signed
    with pytest.raises(FaucetRefused, match="is a faucet of"):
        faucet_network(home, bundle_file(tmp_path, "local"))


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    path = bundle_file(tmp_path, "tdllm")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(FaucetRefused, match="signature"):
        faucet_network(FaucetHome(tmp_path), path)
    path.write_bytes(b"nonsense")
    with pytest.raises(FaucetRefused, match="not a network's bundle"):
        faucet_network(FaucetHome(tmp_path), path)


def test_two_faucets_do_not_give_from_one_folder(tmp_path: Path) -> None:
    home = FaucetHome(tmp_path)
    hold_faucet(home)
    with pytest.raises(FaucetRefused, match="another faucet"):
        hold_faucet(home)
