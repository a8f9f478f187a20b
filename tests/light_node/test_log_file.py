"""The log of workers, supervisors and the chat: lines of one form, rotating, private."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_protocol.log_lines import BadLogSetting
from light_node import log_file


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_json_or_logfmt_at_the_level_asked(tmp_path: Path, root_logger: logging.Logger) -> None:
    log_file.log_to(tmp_path / "a.log", level="warning")
    root_logger.info("not written")
    root_logger.warning("a\n\x1b[2Jb")
    (line,) = (tmp_path / "a.log").read_text().splitlines()
    assert json.loads(line)["message"] == "a\n\x1b[2Jb" and "\x1b" not in line
    log_file.log_to(tmp_path / "b.log", form="logfmt")
    root_logger.info("height=%d", 5)
    assert 'level=info logger=root message="height=5"' in (tmp_path / "b.log").read_text()


def test_generations_are_bounded_and_private(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "FILE_BYTES", 500)
    log_file.log_to(tmp_path / "a.log")
    for number in range(50):
        root_logger.info("entry %d", number)
    files = sorted(tmp_path.iterdir())
    assert [one.name for one in files] == ["a.log", "a.log.1", "a.log.2"]
    assert all(one.stat().st_mode & 0o777 == 0o600 and one.stat().st_size <= 500 for one in files)


def test_an_unknown_setting_touches_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadLogSetting):
        log_file.log_to(tmp_path / "a.log", level="all")
    assert list(tmp_path.iterdir()) == []
