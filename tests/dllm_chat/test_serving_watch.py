"""A worker is waited for as long as it lives, and what ended it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_chat import serving_watch
from dllm_chat.serving_process import Fate
from dllm_chat.serving_watch import WorkerFailed, WorkerWatch
from dllm_chat.session.events import WorkerStatus
from dllm_protocol.errors import TimedOut

LOG = Path("worker.log")


def told(state: str, problem: str = "", *, running: bool = True) -> WorkerStatus:
    return WorkerStatus(running, state, "", "", 0, 0.0, 0, problem)


OFF = told("off", running=False)


class Process:
    """One whose end and words are given."""

    def __init__(self, fate: Fate = Fate.LIVES, words: tuple[str, ...] = ()) -> None:
        self.ends_as, self.words, self.given_up = fate, list(words), 0

    async def start(self) -> None: ...

    async def fate(self) -> Fate:
        return self.ends_as

    async def give_up(self) -> None:
        self.given_up += 1

    def last_words(self) -> list[str]:
        return self.words


class Seen:
    """What the status says, look by look; the last one stays."""

    def __init__(self, *looks: WorkerStatus) -> None:
        self.looks = list(looks)
        self.noted: list[str] = []

    def status(self) -> WorkerStatus:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def watch(seen: Seen, process: Process | None) -> WorkerWatch:
    return WorkerWatch(process, seen.status, seen.noted.append, LOG)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_watch, "_POLL_S", 0.001)
    monkeypatch.setattr(serving_watch, "SETTLED_S", 0.01)


async def test_before_it_speaks_it_is_waited_for_and_then_until_it_has_loaded() -> None:
    seen = Seen(OFF, told("starting"), told("loading"), told("registering"))
    found = watch(seen, Process())
    await found.until_up()
    await found.until_loaded()
    assert seen.noted == []


async def test_one_that_failed_is_named_with_its_problem_and_its_own_advice() -> None:
    seen = Seen(told("loading"), told("failed", "the model is damaged", running=False))
    process = Process(Fate.FAILED, ("the model is damaged", "fetch it again"))
    with pytest.raises(WorkerFailed, match=r"^the model is damaged$") as caught:
        await watch(seen, process).until(("serving",), 30)
    assert caught.value.hint == "fetch it again" and caught.value.exit_code == 3
    assert process.given_up == 1 and seen.noted == []


async def test_a_worker_that_loaded_and_is_refused_all_the_same_has_not_loaded() -> None:
    seen = Seen(told("registering"), told("failed", "the registry has no model x", running=False))
    with pytest.raises(WorkerFailed, match="the registry has no model x") as caught:
        await watch(seen, Process()).until_loaded()
    assert caught.value.hint == f"see {LOG}"


async def test_one_that_ended_without_saying_so_has_its_last_line_kept() -> None:
    seen = Seen(OFF)
    with pytest.raises(WorkerFailed, match="no such option"):
        await watch(seen, Process(Fate.FAILED, ("Usage", "no such option"))).until_up()
    assert seen.noted == ["no such option"]
    silent = Seen(OFF)
    with pytest.raises(WorkerFailed, match="without a word"):
        await watch(silent, Process(Fate.FAILED)).until_up()


async def test_what_was_seen_of_a_failure_is_kept_when_a_second_try_wrote_over_it() -> None:
    seen = Seen(told("failed", "no room for it", running=False), OFF)
    with pytest.raises(WorkerFailed, match="no room for it"):
        await watch(seen, Process(Fate.FAILED)).until(("serving",), 30)
    assert seen.noted == ["no room for it"]


async def test_one_that_was_stopped_did_not_fail() -> None:
    seen = Seen(told("loading"), OFF)
    with pytest.raises(WorkerFailed, match="stopped before it served"):
        await watch(seen, Process(Fate.STOPPED)).until(("serving",), 30)
    assert seen.noted == []
    with pytest.raises(WorkerFailed, match="stopped before it served"):
        await watch(Seen(OFF), None).until(("serving",), 30)


async def test_one_that_lives_is_not_waited_for_for_ever() -> None:
    with pytest.raises(TimedOut, match="still loading"):
        await watch(Seen(told("loading")), None).until(("serving",), 0.02)
