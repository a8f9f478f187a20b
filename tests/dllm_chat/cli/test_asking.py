"""Questions are read, checked before anything is locked, and reported whole."""

import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.cli import asking
from dllm_chat.cli.command import Mode
from dllm_chat.config import Config
from dllm_chat.session.events import (
    Answer,
    Answered,
    AskEvent,
    Progress,
    ProviderShare,
    Quote,
    QuotedStage,
    QuoteReady,
    Routed,
    TextDelta,
    TookOver,
)
from dllm_protocol.errors import Declined
from dllm_protocol.pricing import RowPrices
from tests.dllm_chat.cli.conftest import Ran

Dllm = Callable[..., Ran]
ONE = ProviderShare("localprov1a", "local1a", 0, 4, 800_000)
TWO = ProviderShare("localprov1b", "local1b", 0, 4, 700_000)
QUOTE = Quote(
    "guide", (QuotedStage(ONE, TWO, RowPrices(200, 2000, 2000, 200)),), 10, 512, 500, 2000, 16_000, 130
)
ANSWER = Answer(
    "Hello you", "guide", "LOCAL", "local-00000000", (ONE, TWO), 10, 2, 17, 65, Path("/r"), 9, "AB", "stop"
)
EVENTS: tuple[AskEvent, ...] = (
    Progress("reading"),
    QuoteReady(QUOTE),
    Routed("aa", (ONE,)),
    TextDelta("Hello "),
    TookOver(ONE, TWO, "gone"),
    TextDelta("you"),
    Answered(ANSWER),
)


class Service:
    """What `asking` uses of the chat service."""

    def __init__(self, badge: str = "LOCAL") -> None:
        self.badge = badge
        self.play_money = badge == "LOCAL"
        self.stopped = False
        self.asked: list[Any] = []

    @property
    def chain(self) -> Any:
        class Chain:
            prefix = "local"

        return Chain

    async def ask(self, messages: Any, options: Any) -> AsyncIterator[AskEvent]:
        self.asked.append((messages, options))
        for event in EVENTS:
            yield event

    def stop(self) -> None:
        self.stopped = True


class Opened:
    """Stands where the network is opened."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, *_: Any, **__: Any) -> "Opened":
        return self

    async def __aenter__(self) -> Service:
        return self._service

    async def __aexit__(self, *_: Any) -> None:
        return None


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(asking, "paying", Opened(made))
    return made


def test_json_has_everything_that_was_promised(dllm: Dllm, service: Service) -> None:
    ran = dllm("ask", "hi", "--json")
    assert ran.code == 0
    assert ran.data == {
        "reply": "Hello you",
        "model": "guide",
        "badge": "LOCAL",
        "chain_id": "local-00000000",
        "providers": [
            {"address": "localprov1a", "owner": "local1a", "layers": [0, 4], "reputation_ppm": 800_000},
            {"address": "localprov1b", "owner": "local1b", "layers": [0, 4], "reputation_ppm": 700_000},
        ],
        "links": [],
        "tokens": {"prompt": 10, "completion": 2},
        "cost_udllm": 17,
        "fees_udllm": 65,
        "receipt": "/r",
        "verified": {"height": 9, "hash": "AB"},
        "finish_reason": "stop",
        "speculation": {"drafted": 0, "accepted": 0, "close_calls": 0},
    }
    assert "localprov1b goes on" in ran.err


def test_people_read_the_text_alone_on_stdout(dllm: Dllm, service: Service) -> None:
    ran = dllm("ask", "hi")
    assert (ran.code, ran.out) == (0, "Hello you\n")
    assert "0.000017 DLLM + 0.000065 fees (play money)" in ran.err


def test_a_quote_locks_nothing(dllm: Dllm, service: Service) -> None:
    data = dllm("ask", "hi", "--quote", "--json").data
    assert (data["max_cost_udllm"], data["deposit_udllm"], data["fees_udllm"]) == (2000, 16_000, 130)
    (stage,) = data["stages"]
    assert stage["prices_udllm_per_1000"] == {"prompt": 200, "kept": 2000, "drafted": 2000, "replayed": 200}
    assert "at most" in dllm("ask", "hi", "--quote").out


def test_options_reach_the_service(dllm: Dllm, service: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("the notes")
    options = (
        "--system",
        "Be brief",
        "--file",
        notes,
        "--greedy",
        "--seed",
        "7",
        "--stop",
        "END",
        "--stop",
        "X",
    )
    dllm("ask", "Summarise", *options, "--max-tokens", "9", "--max-cost", "0.5", "-m", "guide")
    messages, asked = service.asked[0]
    assert [(one.role, one.text) for one in messages] == [
        ("system", "Be brief"),
        ("user", "Summarise\n\nthe notes"),
    ]
    assert (asked.sampling.temperature, asked.sampling.seed, asked.stop) == (0.0, 7, ("END", "X"))
    assert (asked.max_tokens, asked.max_cost_udllm, asked.model) == (9, 500_000, "guide")


def test_a_question_comes_from_standard_input(
    dllm: Dllm, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("größer?".encode())))
    assert dllm("ask", "-").code == 0
    assert service.asked[0][0][0].text == "größer?"


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("  ",), "E_PROMPT", 2),
        (("x", "--temperature", "11"), "E_SAMPLING", 2),
        (("x", "--top-k", "0"), "E_SAMPLING", 2),
        (("x", "--max-cost", "0.0000001"), "E_AMOUNT", 2),
        (("x", "--file", "/nowhere/at/all"), "E_NOT_FOUND", 6),
        (("x", "--exclude", "localprov1zz"), "E_ADDRESS", 2),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    dllm: Dllm, service: Service, arguments: tuple[str, ...], code: str, exit_code: int
) -> None:
    ran = dllm("ask", *arguments, "--json")
    assert (ran.code, ran.error["code"]) == (exit_code, code)
    assert service.asked == []


def test_what_is_not_text_is_refused(dllm: Dllm, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe\x00")
    assert dllm("ask", "--file", file, "--json").error["code"] == "E_PROMPT"
    file.write_bytes(b"a" * (asking.MAX_PROMPT_BYTES + 1))
    assert dllm("ask", "--file", file, "--json").error["code"] == "E_PROMPT"


def test_real_money_is_locked_with_a_yes_or_a_limit_only(dllm: Dllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "paying", Opened(Service("NETWORK")))
    ran = dllm("ask", "hi", "--json")
    assert (ran.code, ran.error["code"]) == (Declined.exit_code, "E_DECLINED")
    assert "0.01613 DLLM" in ran.error["message"]
    assert dllm("ask", "hi", "--yes", "--json").code == 0
    assert dllm("ask", "hi", "--max-cost", "1", "--json").code == 0


def test_settings_are_read_before_the_network_is_opened(dllm: Dllm, service: Service, tmp_home: Path) -> None:
    (tmp_home / "config.toml").write_text("modle = 'x'\n")
    ran = dllm("ask", "hi", "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_CONFIG")
    assert Config(origin={}).model == ""
    assert Mode.as_json
    assert json.loads(ran.out)["ok"] is False
