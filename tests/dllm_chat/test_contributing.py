"""Whether the own worker runs: what it wrote counts while it holds its lock, never a number alone."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from dllm_chat.config import Config
from dllm_chat.contributing import (
    LOCK_FILE,
    STATUS_FILE,
    Contributing,
    packaged_model,
    served_slices,
    worker_command,
)
from dllm_chat.serving_from import ServingFrom
from dllm_protocol.errors import UsageRefused

STATUS = {
    "pid": os.getpid(),
    "state": "serving",
    "model": "guide\x1b[31m",
    "provider": "localprov1x",
    "sessions": 2,
    "tokens_per_s": 12.5,
    "earned_unclaimed_udllm": 30,
    "claimed_udllm": 12,
    "problem": "",
}


def contributing(home: Path, status: object = STATUS) -> Contributing:
    home.mkdir(exist_ok=True)
    (home / STATUS_FILE).write_text(json.dumps(status))
    return Contributing(home, None, None, Config())


def test_a_worker_that_holds_its_lock_is_shown_with_clean_words(tmp_path: Path) -> None:
    found = contributing(tmp_path / "worker")
    with (tmp_path / "worker" / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = found.status()
    assert status.running and status.state == "serving"
    assert (status.sessions, status.tokens_per_s, status.earned_udllm) == (2, 12.5, 42)
    assert "\x1b" not in status.model


def test_slices_of_a_status_are_shown_and_nonsense_among_them_is_not(tmp_path: Path) -> None:
    good = {"model": "big\x1b[1m", "layers": [0, 8], "provider": "localprov1y", "sessions": 3}
    nonsense: list[object] = [5, {}, good | {"layers": [1]}, good | {"layers": ["0", 8]}]
    found = contributing(
        tmp_path / "worker", STATUS | {"slices": [good, *nonsense, good | {"layers": [8, 9]}]}
    )
    with (tmp_path / "worker" / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        slices = found.status().slices
    assert [(one.layers, one.sessions) for one in slices] == [((0, 8), 3), ((8, 9), 3)]
    assert "\x1b" not in slices[0].model and slices[0].provider == "localprov1y"
    assert served_slices({"slices": "many"}) == ()
    assert len(served_slices({"slices": [good] * 1000})) == 16


def test_a_process_number_that_somebody_else_has_now_is_no_worker(tmp_path: Path) -> None:
    found = contributing(tmp_path / "worker")
    assert not found.status().running, "no lock file: it never ran here"
    (tmp_path / "worker" / LOCK_FILE).touch()
    assert found.status().state == "off"


def test_a_damaged_status_is_off(tmp_path: Path) -> None:
    for damaged in ([], {"pid": "me"}, {"pid": -5}, "x"):
        assert contributing(tmp_path / "worker", damaged).status().state == "off"


def test_a_workers_command_names_the_model_and_no_secret(tmp_path: Path) -> None:
    command = worker_command(tmp_path, tmp_path / "bundle", owner="local1x", lifeline=True)
    assert command[-1] == "--lifeline" and str(packaged_model()) in command
    assert command[command.index("--owner") + 1] == "local1x"
    assert "--relay" not in command
    relayed = worker_command(tmp_path, tmp_path / "bundle", relay="wss://relay.example")
    assert relayed[-2:] == ["--relay", "wss://relay.example"]


def test_where_it_answers_is_shown_with_clean_words_and_bounded(tmp_path: Path) -> None:
    states = {f"ws://{number}\x1b": "open" for number in range(20)}
    found = contributing(tmp_path / "worker", STATUS | {"endpoint_states": states})
    with (tmp_path / "worker" / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        endpoints = found.status().endpoints
        assert len(endpoints) == 8 and "\x1b" not in "".join(endpoints)
        (tmp_path / "worker" / STATUS_FILE).write_text(json.dumps(STATUS | {"endpoint_states": [1]}))
        assert found.status().endpoints == {}


def test_a_workers_command_names_the_server_that_computes_its_rows(tmp_path: Path) -> None:
    server = ServingFrom.chosen("openai", "http://127.0.0.1:8000/v1", "/keys/mine", "big")
    assert server is not None and ServingFrom.of_request(server.request()) == server
    command = worker_command(tmp_path, tmp_path / "bundle", server=server)
    named = ["--url=http://127.0.0.1:8000/v1", "--api-key-file=/keys/mine", "--remote-model=big"]
    assert command[-5:] == ["--backend", "openai", *named]
    assert ServingFrom.of_request(None) is ServingFrom.of_request({}) is None
    assert "--backend" not in worker_command(tmp_path, tmp_path / "bundle")


@pytest.mark.parametrize(
    "words", [("openai", "", "", ""), ("ollama", "http://x/v1", "", ""), ("llama.cpp", "http://x/v1", "", "")]
)
def test_a_server_is_named_with_its_backend_or_not_at_all(words: tuple[str, str, str, str]) -> None:
    with pytest.raises(UsageRefused):
        ServingFrom.chosen(*words)
    assert ServingFrom.chosen("llama.cpp", "", "", "") is None


def test_the_status_says_which_server_computes_the_rows(tmp_path: Path) -> None:
    url = "http://127.0.0.1:8000/v1"
    found = contributing(
        tmp_path / "worker", {"pid": os.getpid(), "backend": "openai", "backend_url": url + "\x1b"}
    )
    with (tmp_path / "worker" / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (found.status().backend, found.status().backend_url) == ("openai", url)
