"""The ceremony: words are shown once, asked back, and leave no trace."""

import itertools
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_chat.cli import seeds
from tests.dllm_chat.cli.conftest import Ran
from tests.dllm_chat.cli.terminal import Terminal, words_on

Dllm = Callable[..., Ran]
PASSWORD = "velvet onion glacier trumpet"
ASKED = re.compile(r"Word (\d+): $")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    return file


def answer(terminal: Terminal, words: list[str], *, wrong: bool = False) -> None:
    """Answer the four questions."""
    for _ in range(4):
        page = terminal.until(": ")
        found = ASKED.search(page)
        assert found is not None, page
        terminal.type("zoo" if wrong else words[int(found[1]) - 1])
        terminal.until("\n")


def test_a_wallet_is_made_once_its_words_were_repeated(tmp_home: Path) -> None:
    terminal = Terminal(tmp_home, "wallet", "create", "main", "--words", "24")
    words = words_on(terminal.until("Then press Enter. "))
    assert len(words) == 24
    terminal.type("")
    terminal.until("\x1b[H")
    answer(terminal, words)
    terminal.until("New password for wallet main: ")
    terminal.type(PASSWORD)
    terminal.until("once more: ")
    terminal.type(PASSWORD)
    assert terminal.end() == 0
    assert terminal.seen.count("\x1b[?1049h") == terminal.seen.count("\x1b[?1049l") == 1
    after = terminal.seen.rpartition("\x1b[?1049l")[2]
    assert "address dllm1" in terminal.seen.replace("\r", "")
    # Single ones of them, "once" for one, may well be shown; two neighbours may not.
    shown = " ".join(after.split())
    assert not any(f"{one} {other}" in shown for one, other in itertools.pairwise(words))
    assert PASSWORD not in terminal.seen
    assert (tmp_home / "data" / "wallets" / "main" / "keystore.json").is_file()


def test_words_that_are_not_repeated_make_no_wallet(tmp_home: Path) -> None:
    terminal = Terminal(tmp_home, "wallet", "create", "main")
    for _ in range(seeds.MAX_TRIES):
        words = words_on(terminal.until("Then press Enter. "))
        assert len(words) == 12
        terminal.type("")
        terminal.until("\x1b[H")
        answer(terminal, words, wrong=True)
    assert terminal.end() == 9
    assert not (tmp_home / "data" / "wallets" / "main").exists()


def test_a_terminal_without_a_second_screen_is_refused(tmp_home: Path) -> None:
    terminal = Terminal(tmp_home, "wallet", "create", "main", term="dumb")
    assert terminal.end() == 2
    assert "--seed-out" in terminal.seen


def test_without_a_terminal_the_words_need_a_file(dllm: Dllm, password: Path) -> None:
    ran = dllm("wallet", "create", "main", "--password-file", password, "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_SEED_OUT")
    assert "--seed-out" in ran.error["hint"]


def test_words_in_a_file_bring_the_same_wallet_back(
    dllm: Dllm, password: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = tmp_path / "main.seed"
    made = dllm("wallet", "create", "main", "--seed-out", seed, "--password-file", password, "--json").data
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    assert len(seed.read_text().split()) == 12
    address = made["accounts"][0]["address"]
    assert dllm("wallet", "address", "main", "--json").data["address"] == address
    other = tmp_path / "other home"
    other.mkdir(mode=0o700)
    monkeypatch.setenv("DLLM_HOME", str(other))
    again = dllm("wallet", "restore", "main", "--seed-file", seed, "--password-file", password, "--json").data
    assert again["accounts"][0]["address"] == address
    assert again["fingerprint"] == made["fingerprint"]
    assert again["sessions_searched"] is False


def test_an_existing_file_is_never_written_over(dllm: Dllm, password: Path, tmp_path: Path) -> None:
    seed = tmp_path / "main.seed"
    seed.write_text("mine")
    ran = dllm("wallet", "create", "main", "--seed-out", seed, "--password-file", password, "--json")
    assert (ran.code, seed.read_text()) == (2, "mine")
    assert dllm("wallet", "list", "--json").data == {"wallets": []}


def test_a_weak_password_leaves_neither_wallet_nor_words(dllm: Dllm, tmp_path: Path) -> None:
    weak, seed = tmp_path / "weak", tmp_path / "main.seed"
    weak.write_text("password1234")
    ran = dllm("wallet", "create", "main", "--seed-out", seed, "--password-file", weak, "--json")
    assert (ran.code, ran.error["code"]) == (2, "E_WEAK_PASSWORD")
    assert not seed.exists()
    assert "password1234" not in ran.out + ran.err


def test_a_taken_or_bad_name_is_refused_before_the_ceremony(
    dllm: Dllm, password: Path, tmp_path: Path
) -> None:
    dllm("wallet", "create", "main", "--seed-out", tmp_path / "1", "--password-file", password)
    again = dllm(
        "wallet", "create", "main", "--seed-out", tmp_path / "2", "--password-file", password, "--json"
    )
    assert again.error["code"] == "E_WALLET_EXISTS"
    bad = dllm(
        "wallet", "create", "../x", "--seed-out", tmp_path / "3", "--password-file", password, "--json"
    )
    assert (bad.code, bad.error["code"]) == (2, "E_NAME")
    assert not (tmp_path / "2").exists()
    assert not (tmp_path / "3").exists()


def test_words_are_revealed_into_a_file_after_the_password(
    dllm: Dllm, password: Path, tmp_path: Path
) -> None:
    seed, again, wrong = tmp_path / "1", tmp_path / "2", tmp_path / "wrong"
    wrong.write_text("another long password")
    dllm("wallet", "create", "main", "--seed-out", seed, "--password-file", password)
    refused = dllm("wallet", "reveal-seed", "--seed-out", again, "--password-file", wrong, "--json")
    assert (refused.code, refused.error["code"], again.exists()) == (7, "E_PASSWORD", False)
    assert dllm("wallet", "reveal-seed", "--seed-out", again, "--password-file", password).code == 0
    assert again.read_text() == seed.read_text()


def test_the_password_is_changed(dllm: Dllm, password: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.write_text("meadow cartridge owl piano")
    dllm("wallet", "create", "main", "--seed-out", tmp_path / "1", "--password-file", password)
    ran = dllm("wallet", "passwd", "--password-file", password, "--new-password-file", new, "--json")
    assert ran.data == {"wallet": "main"}
    assert dllm("wallet", "reveal-seed", "--seed-out", tmp_path / "2", "--password-file", password).code == 7
    assert dllm("wallet", "reveal-seed", "--seed-out", tmp_path / "3", "--password-file", new).code == 0
