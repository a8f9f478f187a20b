"""``dllm-worker`` from the outside: envelopes, exit codes, and nothing secret on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import local_worker.cli
from dllm_chat.embedded.chain import make_genesis
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.bundle import NetworkBundle, SignedBundle
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.refusals import InsufficientFunds
from local_worker.cli import app
from local_worker.keys import key_file
from local_worker.status import Status, StatusFile


def _bundle() -> bytes:
    key = bytes([2]) * 32
    genesis = make_genesis(
        wallet=address_of(key), workers=[], validator=key, genesis_time_ms=1_790_000_000_000, nonce=bytes(32)
    )
    network = NetworkBundle(1, genesis, 1, bytes(32), ("ws://127.0.0.1:1/websocket",), (), (), "")
    return SignedBundle(network, b"", b"").encode()


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def data(*words: str) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    envelope = json.loads(result.stdout)
    assert envelope["ok"] is True
    return dict(envelope["data"])


def failure(*words: str) -> tuple[int, dict[str, Any]]:
    result = run(*words, "--json")
    envelope = json.loads(result.stdout)
    assert envelope["ok"] is False
    return result.exit_code, dict(envelope["error"])


def test_init_makes_keys_once_and_says_them_again(tmp_path: Path) -> None:
    home = str(tmp_path / "w")
    made = data("init", "--home", home)
    assert set(made) == {"operator", "operator_key", "service_key", "sealing_key"}
    assert data("init", "--home", home) == made == data("keys", "--home", home)
    secrets = json.loads(key_file(tmp_path / "w").read_text())["seeds"].values()
    assert all(secret not in json.dumps(made) for secret in secrets)


def test_operators_are_shown_as_they_are_paid_where_the_network_is_known(tmp_path: Path) -> None:
    home, bundle = str(tmp_path / "w"), tmp_path / "bundle"
    bundle.write_bytes(_bundle())
    plain = run("init", "--home", home)
    operator = data("keys", "--home", home)["operator"]
    assert f"operator: {operator}" in plain.stdout
    assert f"dllm-worker keys --home {home} --bundle BUNDLE" in plain.stderr
    address = encode_address("local", bytes.fromhex(operator))
    for command in ("init", "keys"):
        told = run(command, "--home", home, "--bundle", str(bundle))
        assert f"operator address: {address}" in told.stdout and operator not in told.stdout
        assert f"dllm wallet send {address} 11" in told.stderr
        known = data(command, "--home", home, "--bundle", str(bundle))
        assert (known["operator"], known["operator_address"]) == (operator, address)
    several = run("init", "--home", home, "--slices", "2", "--bundle", str(bundle))
    assert several.stdout.count("slice: ") == several.stdout.count("operator address: local1") == 2
    code, error = failure("init", "--home", str(tmp_path / "new"), "--bundle", "nowhere")
    assert (code, error["code"]) == (2, "E_USAGE") and not (tmp_path / "new").exists()


def test_a_start_without_money_names_the_operators_address_and_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(*_: object, **__: object) -> None:
        raise InsufficientFunds("the account has 5 udllm, 10000000 are needed", hint="add funds")

    home, bundle = str(tmp_path / "w"), tmp_path / "bundle"
    bundle.write_bytes(_bundle())
    address = encode_address("local", bytes.fromhex(data("init", "--home", home)["operator"]))
    monkeypatch.setattr(local_worker.cli, "run_worker", poor)
    code, error = failure("start", "--home", home, "--bundle", str(bundle))
    assert (code, error["code"]) == (5, "E_TX_INSUFFICIENT_FUNDS")
    assert error["message"] == "the account has 5 udllm, 10000000 are needed"
    assert error["hint"].splitlines()[1:] == [f"dllm wallet send {address} 21"], "with the bond of a model"
    _, error = failure("start", "--home", home, "--bundle", str(bundle), "--owner", address)
    assert f"dllm wallet send {address} 11" in error["hint"], "the owner posts the provider's bond"


def test_rotate_changes_what_may_change(tmp_path: Path) -> None:
    home = str(tmp_path / "w")
    before, after = data("init", "--home", home), data("rotate", "--home", home)
    assert before["operator"] == after["operator"]
    assert before["service_key"] != after["service_key"] and before["sealing_key"] != after["sealing_key"]


def test_a_worker_of_several_slices_has_keys_for_each(tmp_path: Path) -> None:
    home = str(tmp_path / "w")
    one = data("init", "--home", home)
    made = data("init", "--home", home, "--slices", "3")
    assert made["slices"][0] == one
    assert len({keys["operator"] for keys in made["slices"]}) == 3
    assert data("keys", "--home", home) == made == data("init", "--home", home, "--slices", "3")
    rotated = data("rotate", "--home", home)
    assert [keys["operator"] for keys in rotated["slices"]] == [keys["operator"] for keys in made["slices"]]
    old = {keys["service_key"] for keys in made["slices"]}
    assert not old & {keys["service_key"] for keys in rotated["slices"]}
    key_file(tmp_path / "w" / "slices" / "2").unlink()
    (tmp_path / "w" / "slices" / "2" / "worker.db").write_bytes(b"")
    code, error = failure("init", "--home", home, "--slices", "2")
    assert (code, "vouchers of a provider" in error["message"]) == (2, True)


def test_status_of_a_worker_that_stopped_and_of_none(tmp_path: Path) -> None:
    code, error = failure("status", "--home", str(tmp_path))
    assert (code, error["code"]) == (2, "E_WORKER_HOME") and error["hint"]
    StatusFile(tmp_path).write(Status(pid=1, state="stopped", model="guide"))
    told = data("status", "--home", str(tmp_path))
    assert (told["state"], told["model"], told["running"]) == ("stopped", "guide", False)
    assert "model: guide" in run("status", "--home", str(tmp_path)).stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--bundle", "nowhere"], "E_USAGE"),
        (["--bundle", "nowhere", "--listen", "everywhere"], "E_USAGE"),
    ],
)
def test_a_start_that_makes_no_sense(tmp_path: Path, words: list[str], code: str) -> None:
    data("init", "--home", str(tmp_path / "w"))
    exit_code, error = failure("start", "--home", str(tmp_path / "w"), *words)
    assert (exit_code, error["code"]) == (2, code)


def test_a_start_of_slices_that_makes_no_sense(tmp_path: Path) -> None:
    home = str(tmp_path / "w")
    data("init", "--home", home)
    start = ("start", "--home", home, "--bundle", "nowhere")
    _, error = failure(*start, "--model", "m.gguf", "--package", "p")
    assert "two models" in error["message"]
    _, error = failure(*start, "--package", "p", "--layers", "0-4")
    assert "no range of layers" in error["message"]
    code, error = failure(*start, "--package", "p", "--layers", "0:4", "--layers", "4:8")
    assert (code, error["message"]) == (2, "slice 2 has no keys")
    assert error["hint"].endswith(f"init --home {home} --slices 2")
    code, error = failure(*start, "--model", "m.gguf", "--layers", "0:4", "--peer", "127.0.0.1:1")
    assert (code, error["message"]) == (2, "--peer and --web-seed are for --package")
    _, error = failure(*start, "--package", "p", "--upload-limit", "2M")
    assert error["message"] == "--upload-limit is for --seed"


def test_a_start_without_a_home(tmp_path: Path) -> None:
    exit_code, error = failure("start", "--home", str(tmp_path / "nowhere"), "--bundle", "x")
    assert (exit_code, error["code"]) == (2, "E_WORKER_HOME")


def test_a_manifest_of_a_file(tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / "manifest"
    told = data("manifest", "--home", str(tmp_path / "w"), "--model", str(tiny_model), "--out", str(out))
    made = Manifest.decode(out.read_bytes())
    assert (told["name"], told["layers"], told["chat_template"]) == ("tiny-model", 2, "chatml")
    assert made.pieces[0].size_bytes == tiny_model.stat().st_size


def test_a_servers_options_are_checked_before_anything_starts(tmp_path: Path) -> None:
    home, bundle, key = str(tmp_path / "w"), tmp_path / "bundle", tmp_path / "key"
    data("init", "--home", home)
    bundle.write_bytes(_bundle())
    key.write_text("sk-secret")
    key.chmod(0o644)
    start = ("start", "--home", home, "--bundle", str(bundle))
    for words, told in (
        (("--backend", "openai"), "needs --url"),
        (("--backend", "ollama"), "no backend 'ollama'"),
        (("--url", "http://127.0.0.1:8000/v1"), "are for --backend openai"),
        (("--backend", "openai", "--url", "http://x/v1", "--layers", "0:2"), "whole models"),
        (("--backend", "openai", "--url", "http://me:sk-secret@x/v1"), "without password"),
        (("--backend", "openai", "--url", "http://x/v1", "--api-key-file", str(key)), "read by others"),
    ):
        code, error = failure(*start, *words)
        assert (code, error["code"]) == (2, "E_USAGE") and told in error["message"]
        assert "sk-secret" not in json.dumps(error)
