"""`dllm doctor` finds what is wrong, starts nothing and touches nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_chat.cli import checks
from tests.dllm_chat.cli.conftest import Ran

Dllm = Callable[..., Ran]


def found(ran: Ran) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in ran.data["checks"]}


def test_an_empty_home_is_healthy_and_stays_empty(dllm: Dllm, tmp_home: Path) -> None:
    ran = dllm("doctor", "--json")
    states = {name: one["state"] for name, one in found(ran).items() if name != "model file"}
    assert ran.code == 0
    assert states | {"llama.cpp": "ok", "disk": "ok"} == dict.fromkeys(states, "ok")
    assert list(tmp_home.iterdir()) == []


def test_an_open_folder_and_a_readable_key_are_found(dllm: Dllm, tmp_home: Path) -> None:
    keys = tmp_home / "data" / "wallets" / "main"
    keys.mkdir(parents=True)
    (tmp_home / "data").chmod(0o755)
    (keys / "keystore.json").touch(mode=0o644)
    (keys / "keystore.json").chmod(0o644)
    ran = found(dllm("doctor", "--json"))
    assert (ran["data folder"]["state"], "chmod 700" in ran["data folder"]["hint"]) == ("warn", True)
    assert (ran["key files"]["state"], "keystore.json" in ran["key files"]["hint"]) == ("fail", True)


def test_a_bad_setting_and_a_bad_model_file_are_found(dllm: Dllm, tmp_home: Path) -> None:
    (tmp_home / "config.toml").write_text("modle_file = 'x'\n")
    ran = dllm("doctor", "--json")
    assert ran.data["healthy"] is False
    assert "model_file" in found(ran)["settings"]["hint"]
    (tmp_home / "config.toml").write_text(f"model_file = '{tmp_home}/no.gguf'\n")
    assert found(dllm("doctor", "--json"))["model file"]["state"] == "fail"


def test_a_clock_behind_the_chain_is_found(dllm: Dllm, tmp_home: Path) -> None:
    embedded = tmp_home / "data" / "embedded"
    embedded.mkdir(parents=True, mode=0o700)
    (embedded / "clock_floor").write_text(str(4_000_000_000 * checks.NS_PER_S))
    assert found(dllm("doctor", "--json"))["clock"]["state"] == "warn"


def test_a_full_disk_fails(dllm: Dllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MIN_FREE_BYTES", 1 << 62)
    ran = dllm("doctor", "--json")
    assert (found(ran)["disk"]["state"], ran.data["healthy"]) == ("fail", False)
    assert "fail" in dllm("doctor").out
