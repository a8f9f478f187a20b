"""The worker's program as it is heard by the client's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dllm_chat.packages import MAX_ANSWER_BYTES, PackagerFailed, _all_of, names_a_package, run_packager


async def test_its_errors_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(PackagerFailed) as caught:
        await run_packager(["show", "--json", "--", str(tmp_path)], lambda line: None)
    error = caught.value
    assert (error.code, error.exit_code) == ("E_PACKAGE", 6)
    assert "is no package" in error.message and error.hint
    assert (PackagerFailed.code, PackagerFailed.exit_code) == ("E_PACKAGER", 1)


async def test_a_program_that_says_nothing_is_named(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(PackagerFailed, match="ended with 2 and no answer"):
        await run_packager(["no-such-command"], lines.append)
    assert any("no-such-command" in line for line in lines)


async def test_an_answer_comes_in_many_pieces_and_is_bounded() -> None:
    stream = asyncio.StreamReader()
    reading = asyncio.create_task(_all_of(stream))
    for piece in (b"one, ", b"two, ", b"three"):
        stream.feed_data(piece)
        await asyncio.sleep(0)
    stream.feed_eof()
    assert await reading == b"one, two, three"
    endless = asyncio.StreamReader()
    endless.feed_data(bytes(MAX_ANSWER_BYTES + 5))
    endless.feed_eof()
    assert len(await _all_of(endless)) == MAX_ANSWER_BYTES


def test_what_names_a_package_and_what_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guide").mkdir()
    assert not names_a_package("guide")
    (tmp_path / "guide" / "manifest").touch()
    assert names_a_package("guide")
    assert names_a_package("./anything")
    assert not names_a_package("anything")
