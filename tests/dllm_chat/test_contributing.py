"""Whether the own worker runs: what it wrote counts while it holds its lock, never a number alone."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_chat import contributing as room
from dllm_chat.config import Config
from dllm_chat.contributing import STATUS_FILE, Contributing, packaged_model, served_slices, worker_command
from dllm_chat.dispatch.purse import ChatKeyPurse
from dllm_chat.embedded.chain import make_genesis
from dllm_chat.serving_from import ServingFrom
from dllm_chat.serving_process import LOCK_FILE
from dllm_chat.serving_watch import WorkerFailed
from dllm_chat.session.events import WorkerStatus
from dllm_protocol.actions import RegisterProvider
from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle
from dllm_protocol.errors import UsageRefused, WalletLocked
from dllm_protocol.refusals import InsufficientFunds
from tests.dllm_chat.test_serving_bond import KEYS, OwnersChain
from tests.dllm_chat.worker_programs import worker_program

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


FAILED = WorkerStatus(False, "failed", "", "", 0, 0.0, 0, "the model is damaged")


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


async def test_a_failure_outlives_the_worker_until_it_is_switched_off(tmp_path: Path) -> None:
    home = tmp_path / "worker"
    found = contributing(home, {"pid": os.getpid(), "state": "failed", "problem": "the model is\x1b damaged"})
    (home / LOCK_FILE).touch()
    assert found.status() == FAILED
    assert Contributing(home, None, None, Config()).status() == FAILED, "so sees it another program"
    await found.stop()
    assert found.status() == WorkerStatus(False, "off", "", "", 0, 0.0, 0, "")


def test_a_failure_whose_problem_is_missing_is_one_all_the_same(tmp_path: Path) -> None:
    found = contributing(tmp_path / "worker", {"pid": 0, "state": "failed"})
    assert (found.status().state, found.status().problem) == ("failed", "the worker failed")


class Rig:
    """A home on a joined network, whose worker is one of `worker_programs`."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.chain = home, OwnersChain()
        self.words: tuple[str, ...] = ("starting", "loading", "registering", "hold")
        self.started = 0
        genesis = make_genesis(
            wallet=b"\1" * 20,
            workers=[b"\2" * 20],
            validator=b"\3" * 32,
            genesis_time_ms=1_700_000_000_000,
            nonce=b"\4" * 32,
        )
        self.bundle = NetworkBundle(
            BUNDLE_VERSION, genesis, 1, b"\5" * 32, ("ws://127.0.0.1:1/",), (), (), ""
        )
        self.own = Contributing(home, None, None, Config())
        home.mkdir()
        monkeypatch.setattr(room, "worker_command", self._command)
        monkeypatch.setattr(room, "worker_keys", self._keys)

    def _command(self, *_: object, **__: object) -> list[str]:
        self.started += 1
        return worker_program(self.home, *self.words)

    async def _keys(self, home: Path) -> dict[str, bytes]:
        return KEYS

    async def start(self) -> None:
        await self.own.start(self.chain.chain, self.bundle, None)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "worker", monkeypatch)
    yield made
    await made.own.stop()


async def test_a_bond_is_posted_when_the_model_has_loaded_and_the_worker_goes_on(rig: Rig) -> None:
    starting = asyncio.create_task(rig.start())
    while rig.own.status().state != "loading":
        assert not starting.done()
        await asyncio.sleep(0.02)
    assert rig.chain.sent == []
    await starting
    assert [one for one in rig.chain.sent if isinstance(one, RegisterProvider)]
    assert rig.own.status().running
    await rig.start()
    assert rig.started == 1, "it runs already"
    await rig.own.stop()
    assert rig.own.status().state == "off"


async def test_a_model_that_does_not_load_costs_no_bond_and_says_why(rig: Rig) -> None:
    rig.words = ("starting", "loading", "fail")
    with pytest.raises(WorkerFailed, match=r"^the model is damaged$") as caught:
        await rig.start()
    assert caught.value.hint == "fetch it again"
    assert rig.chain.sent == []
    assert rig.own.status() == FAILED
    # The next start is another try, and forgets it.
    rig.words = ("starting", "loading", "registering", "hold")
    await rig.start()
    assert rig.own.status().running and rig.chain.sent


async def test_a_worker_that_is_refused_as_it_registers_costs_no_bond(rig: Rig) -> None:
    rig.words = ("loading", "registering", "fail")
    with pytest.raises(WorkerFailed, match="the model is damaged"):
        await rig.start()
    assert rig.chain.sent == []


async def test_a_worker_that_crashes_says_its_last_words(rig: Rig) -> None:
    rig.words = ("loading", "crash")
    with pytest.raises(WorkerFailed, match="no such device"):
        await rig.start()
    assert (rig.own.status().state, rig.own.status().problem) == ("failed", "OSError: no such device")


async def test_a_known_provider_is_waited_for_only_until_it_speaks_and_then_until_it_serves(rig: Rig) -> None:
    rig.chain.is_registered = True
    rig.words = ("loading", "registering", "serving", "hold")
    await rig.start()
    assert rig.own.status().state in ("loading", "registering")
    assert (await rig.own.until_serving(30)).state == "serving"
    await rig.own.stop()
    rig.words = ("loading", "fail")
    await rig.start()
    with pytest.raises(WorkerFailed, match="the model is damaged"):
        await rig.own.until_serving(30)


async def test_one_that_takes_longer_goes_on_by_itself(rig: Rig) -> None:
    rig.chain.is_registered = True
    rig.words = ("loading", "hold")
    await rig.start()
    found = await rig.own.until_serving(0.2)
    assert found.running and found.state == "loading"


async def test_what_the_account_cannot_send_starts_nothing(rig: Rig) -> None:
    rig.chain.balances[rig.chain.purse.account] = 3
    with pytest.raises(InsufficientFunds):
        await rig.start()
    rig.chain.purse = object.__new__(ChatKeyPurse)
    rig.chain.purse.account = b"\1" * 20
    with pytest.raises(WalletLocked):
        await rig.start()
    assert not rig.started and rig.own.status().state == "off"


async def test_whoever_stops_waiting_leaves_no_worker_behind(rig: Rig) -> None:
    rig.words = ("loading", "hold")
    starting = asyncio.create_task(rig.start())
    while not rig.own.status().running:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.02)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert rig.own.status().state == "off" and rig.chain.sent == []


async def test_a_stop_while_it_loads_ends_the_waiting(rig: Rig) -> None:
    rig.words = ("loading", "hold")
    starting = asyncio.create_task(rig.start())
    while not rig.own.status().running:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.02)
    await rig.own.stop()
    with pytest.raises(WorkerFailed, match="stopped before it served"):
        await starting
    assert rig.own.status().state == "off"
