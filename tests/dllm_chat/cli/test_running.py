"""One envelope, one exit code, whatever happens."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_chat.cli import wallets
from dllm_protocol import errors
from tests.dllm_chat.cli.conftest import Ran

Dllm = Callable[..., Ran]


def test_json_may_stand_before_or_behind_the_command(dllm: Dllm) -> None:
    before, behind = dllm("--json", "wallet", "list"), dllm("wallet", "list", "--json")
    assert before.data == behind.data == {"wallets": []}
    assert (before.code, behind.code) == (0, 0)


def test_without_json_people_read_text(dllm: Dllm) -> None:
    ran = dllm("wallet", "list")
    assert ran.code == 0
    assert "no wallets yet" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wallt",), "Did you mean 'wallet'"),
        (("wallet", "blance"), "balance"),
        (("version", "--bogus"), "--bogus"),
        (("wallet", "send"), "to"),
        (("ask", "x", "--max-tokens", "many"), "--max-tokens"),
        ((), "issing"),
        (("wallet",), "issing"),
    ],
)
def test_a_bad_command_line_is_code_2_with_a_hint(dllm: Dllm, arguments: tuple[str, ...], words: str) -> None:
    ran = dllm(*arguments, "--json")
    assert ran.code == 2
    assert ran.error["code"] == "E_USAGE"
    assert words in ran.error["message"]
    assert "--help" in ran.error["hint"]
    said = dllm(*arguments)
    assert said.out == "" or not arguments
    assert said.code == (2 if arguments else 0)


def test_dllm_alone_prints_help_that_leads_with_examples(dllm: Dllm) -> None:
    ran = dllm()
    assert ran.code == 0
    assert ran.out.index('dllm ask "What is DLLM?"') < ran.out.index("Options:")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageRefused, 2),
        (errors.NetworkUnreachable, 3),
        (errors.TimedOut, 4),
        (errors.TransactionRefused, 5),
        (errors.NotFound, 6),
        (errors.WalletLocked, 7),
        (errors.VerificationFailed, 8),
        (errors.MalformedBytes, 8),
        (errors.Declined, 9),
    ],
)
def test_every_declared_error_has_its_exit_code(
    dllm: Dllm, monkeypatch: pytest.MonkeyPatch, kind: type[errors.DllmError], code: int
) -> None:
    def fail(_: object) -> None:
        raise kind("it went\x1b[31m wrong", hint="do this")

    monkeypatch.setattr(wallets, "wallets", fail)
    ran = dllm("wallet", "list", "--json")
    assert (ran.code, ran.error) == (
        code,
        {"code": kind.code, "message": "it went[31m wrong", "hint": "do this"},
    )
    said = dllm("wallet", "list")
    assert (said.code, said.out, said.err) == (code, "", "error: it went[31m wrong\nhint: do this\n")


def test_a_fault_of_our_own_goes_to_the_log_and_not_to_the_terminal(
    dllm: Dllm, monkeypatch: pytest.MonkeyPatch, tmp_home: Path
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("inner words")

    monkeypatch.setattr(wallets, "wallets", fail)
    ran = dllm("wallet", "list", "--json")
    assert (ran.code, ran.error["code"]) == (1, "E_INTERNAL")
    assert "ZeroDivisionError" in ran.error["message"]
    assert "Traceback" not in ran.out + ran.err
    log = tmp_home / "state" / "logs" / "dllm.log"
    assert str(log) in ran.error["hint"]
    assert "inner words" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_ctrl_c_is_130(dllm: Dllm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wallets, "wallets", fail)
    ran = dllm("wallet", "list", "--json")
    assert (ran.code, ran.error["code"]) == (130, "E_INTERRUPTED")


def test_a_bad_home_is_said_in_json(dllm: Dllm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("DLLM_HOME", str(file))
    ran = dllm("wallet", "list", "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_HOME")


def test_what_stands_behind_two_dashes_is_no_option(dllm: Dllm) -> None:
    ran = dllm("wallet", "send", "--", "--json", "1.1234567")
    assert ran.code == 2
    assert ran.out == ""
    assert "decimal places" in ran.err


def test_a_name_that_is_no_text_is_escaped(dllm: Dllm) -> None:
    ran = dllm("receipt", "verify", "\udcff", "--json")
    assert (ran.code, ran.error["code"]) == (6, "E_NOT_FOUND")
    assert "\\udcff" in ran.error["message"]


def test_a_reader_that_goes_away_ends_us_quietly(tmp_home: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dllm_chat.cli.main", "version", "--json"]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert tmp_home.is_dir()
    assert (ran.returncode, ran.stderr) == (1, b"")
