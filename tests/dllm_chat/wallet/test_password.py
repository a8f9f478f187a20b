from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from dllm_chat.wallet.errors import NoPassword, WeakPassword
from dllm_chat.wallet.password import (
    DescriptorPassword,
    FilePassword,
    NoPasswordSource,
    PromptPassword,
    check_password,
    estimate_bits,
    read_new_password,
)
from tests.dllm_chat.wallet.parts import PASSWORD


def descriptor_with(data: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


@pytest.mark.parametrize(
    ("raw", "expected"), [(b"abc", "abc"), (b"abc\n", "abc"), (b"a c \r\n", "a c "), ("é".encode(), "é")]
)
def test_files_and_descriptors_give_their_line(tmp_path: Path, raw: bytes, expected: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(raw)
    assert FilePassword(file).read("") == expected
    source = DescriptorPassword(descriptor_with(raw))
    assert source.read("") == expected
    assert source.read("once more") == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"", "empty"), (b"\n", "empty"), (b"a\nb\n", "more than one line"), (b"x" * 1025, "longer than 1024")],
)
def test_other_contents_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(raw)
    with pytest.raises(NoPassword, match=message):
        FilePassword(file).read("")
    with pytest.raises(NoPassword, match=message):
        DescriptorPassword(descriptor_with(raw)).read("")


def test_bytes_that_are_no_text_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"secret-part\xff")
    with pytest.raises(NoPassword, match="not UTF-8") as caught:
        FilePassword(file).read("")
    assert "secret-part" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_files_and_descriptors_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoPassword, match="cannot be read"):
        FilePassword(tmp_path / "none").read("")
    with pytest.raises(NoPassword, match="cannot be read"):
        DescriptorPassword(987_654).read("")
    with pytest.raises(NoPassword, match="nobody to ask") as caught:
        NoPasswordSource().read("")
    assert "--password-file" in caught.value.hint


def test_a_prompt_asks_and_refuses_nothing() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "typed"

    assert PromptPassword(ask).read("Password") == "typed"
    assert asked == ["Password"]
    with pytest.raises(NoPassword, match="no password was typed"):
        PromptPassword(lambda prompt: "").read("Password")


def test_sources_do_not_show_what_they_hold() -> None:
    source = DescriptorPassword(descriptor_with(b"hidden-one"))
    source.read("")
    assert "hidden-one" not in repr(source)
    with pytest.raises(TypeError, match="never copied"):
        pickle.dumps(source)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "password123",
        "1234567890",
        "abcdefghijklmnop",
        "Passwort2024",
        "qwertz1234",
        "aabbaabbaabbaabb",
    ],
)
def test_passwords_that_are_soon_guessed_are_refused(password: str) -> None:
    with pytest.raises(WeakPassword) as caught:
        check_password(password)
    assert password not in caught.value.message or not password
    assert "words" in caught.value.hint


@pytest.mark.parametrize(
    "password", [PASSWORD, "tR7#kq9!vLm2", "kupfer laterne staub", "秘密の言葉は長い方がいい"]
)
def test_good_ones_pass(password: str) -> None:
    check_password(password)
    assert estimate_bits(password) >= 45


def test_an_endless_one_is_refused() -> None:
    with pytest.raises(WeakPassword, match="longer"):
        check_password("correct horse " * 100)


def test_a_new_password_from_a_file_is_read_once_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    assert read_new_password(FilePassword(file), "New") == PASSWORD
    file.write_text("weak")
    with pytest.raises(WeakPassword):
        read_new_password(FilePassword(file), "New")
