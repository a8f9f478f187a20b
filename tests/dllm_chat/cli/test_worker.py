"""A worker that does not run is off, and asking about it starts nothing."""

from __future__ import annotations

import importlib.util
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from dllm_chat.cli import workers
from dllm_chat.session.events import WorkerStatus
from dllm_chat.session.service import ChatService
from tests.dllm_chat.cli.conftest import Ran


def test_without_a_worker_status_and_off_start_nothing(dllm: Callable[..., Ran], tmp_home: Path) -> None:
    status = dllm("worker", "status", "--json")
    assert (status.code, status.data["state"], status.data["running"]) == (0, "off", False)
    off = dllm("worker", "off", "--json")
    assert (off.code, off.data["was_running"]) == (0, False)
    assert list(tmp_home.iterdir()) == []


def test_a_relay_is_refused_where_nobody_else_is_on_the_network(dllm: Callable[..., Ran]) -> None:
    ran = dllm("worker", "on", "--relay", "wss://relay.example", "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_USAGE")
    assert "--relay" in ran.error["message"] and "network join" in ran.error["hint"]


def test_pieces_are_refused_where_nobody_else_is_on_the_network(dllm: Callable[..., Ran]) -> None:
    ran = dllm("worker", "on", "--package", "big.package", "--layers", "auto", "--name", "big", "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_USAGE")
    assert "--package" in ran.error["message"] and "network join" in ran.error["hint"]
    two = dllm("worker", "on", "--package", "big.package", "--model", "m.gguf", "--json")
    assert (two.code, two.error["message"]) == (2, "--package stands alone")
    lone = dllm("worker", "on", "--peer", "192.0.2.7:6881", "--json")
    assert lone.code == 2 and "--package DIR" in lone.error["hint"]


def test_a_file_that_is_no_model_is_refused_before_any_network_starts(
    dllm: Callable[..., Ran], tmp_home: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("buy milk\n")
    ran = dllm("worker", "on", "--model", notes, "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_USAGE")
    assert "is not a GGUF file" in ran.error["message"] and "dllm model found" in ran.error["hint"]
    assert dllm("worker", "on", "--model", tmp_path / "gone.gguf", "--json").code == 6
    assert list(tmp_home.iterdir()) == []


def test_a_server_that_does_not_answer_is_refused_before_any_network_starts(
    dllm: Callable[..., Ran], tmp_home: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        ran = dllm("worker", "on", "--backend", "openai", "--url", url, "--json")
    assert (ran.code, ran.error["code"]) == (3, "E_NETWORK")
    assert "does not answer" in ran.error["message"] and "is it running" in ran.error["hint"]
    assert list(tmp_home.iterdir()) == []


def test_a_client_only_installation_says_so(
    dllm: Callable[..., Ran], tmp_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    for words in (("worker", "on"), ("model", "pack", tmp_path / "big.gguf")):
        (tmp_path / "big.gguf").touch()
        ran = dllm(*words, "--json")
        assert (ran.code, ran.error["code"]) == (3, "E_CLIENT_ONLY"), words
        assert "client-only" in ran.error["message"]
        assert ran.error["hint"] == "dllm network join BUNDLE, or make setup for the rest"
        assert "Traceback" not in ran.err
    assert list(tmp_home.iterdir()) == []


def test_a_failure_is_shown_until_the_worker_is_switched_off(
    dllm: Callable[..., Ran], tmp_home: Path
) -> None:
    own = tmp_home / "data" / "embedded" / "worker-own"
    own.mkdir(parents=True)
    (own / "status.json").write_text(json.dumps({"pid": 1, "state": "failed", "problem": "no room for it"}))
    status = dllm("worker", "status", "--json").data
    assert (status["running"], status["state"], status["problem"]) == (False, "failed", "no room for it")
    assert "no room for it" in dllm("worker", "status").out
    off = dllm("worker", "off", "--json").data
    assert (off["was_running"], off["state"], off["problem"]) == (False, "off", "")
    assert dllm("worker", "status", "--json").data["state"] == "off"


@pytest.mark.parametrize(("state", "shown"), [("serving", "serving"), ("loading", "starting")])
async def test_what_is_said_to_start_runs(state: str, shown: str) -> None:
    async def until_serving(timeout_s: float) -> WorkerStatus:
        return WorkerStatus(True, state, "guide", "", 0, 0.0, 0, "")

    service = SimpleNamespace(
        connection=SimpleNamespace(contributing=SimpleNamespace(until_serving=until_serving))
    )
    found = await workers._serving(cast(ChatService, service))
    assert (found.running, found.state) == (True, shown)
