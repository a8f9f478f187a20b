"""The log: lines of JSON, rotating, private."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from full_node import node_log


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


def test_entries_are_json_with_tracebacks(tmp_path: Path, root_logger: logging.Logger) -> None:
    node_log.log_to(tmp_path / "logs")
    root_logger.info("height=%d\nnext", 5)
    try:
        raise ValueError("inside")
    except ValueError:
        root_logger.exception("failed")
    first, second = [json.loads(line) for line in (tmp_path / "logs" / "node.log").read_text().splitlines()]
    assert (first["level"], first["logger"], first["message"]) == ("info", "root", "height=5\nnext")
    assert "ValueError: inside" in second["traceback"]


def test_generations_are_bounded_and_private(
    tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_log, "FILE_BYTES", 500)
    node_log.log_to(tmp_path / "logs")
    for number in range(50):
        root_logger.info("entry %d", number)
    files = sorted((tmp_path / "logs").iterdir())
    assert [one.name for one in files] == ["node.log", "node.log.1", "node.log.2", "node.log.3"]
    assert all(one.stat().st_mode & 0o777 == 0o600 and one.stat().st_size <= 500 for one in files)
