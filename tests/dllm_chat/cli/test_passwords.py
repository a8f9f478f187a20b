"""Where a password comes from, and that it is nowhere else."""

import os
from pathlib import Path

import pytest

from dllm_chat.cli.passwords import OneSource, password_source, secret_from
from dllm_chat.wallet.errors import NoPassword


def test_a_file_and_a_descriptor_are_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse battery\n")
    assert password_source(file, None).read("?") == "correct horse battery"
    reader, writer = os.pipe()
    os.write(writer, b"staple\n")
    os.close(writer)
    assert secret_from(None, reader, "seed") == "staple"
    os.close(reader)


def test_two_sources_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(OneSource, match="--seed-file and --seed-fd"):
        password_source(tmp_path, 0, "seed")


def test_without_a_person_there_is_none() -> None:
    with pytest.raises(NoPassword, match="nobody to ask"):
        password_source(None, None).read("?")
    assert secret_from(None, None, "seed") is None
