"""Running `dllm` in this process, against an empty home."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.cli.running import run_command


@dataclass(frozen=True)
class Ran:
    """What a command wrote and how it ended."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON object."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        found = json.loads(self.out)
        assert found["schema"] == 1
        return dict(found)

    @property
    def data(self) -> dict[str, Any]:
        assert self.envelope["ok"] is True, self.out
        return dict(self.envelope["data"])

    @property
    def error(self) -> dict[str, str]:
        assert self.envelope["ok"] is False, self.out
        assert set(self.envelope["error"]) == {"code", "message", "hint"}
        return dict(self.envelope["error"])


@pytest.fixture
def dllm(tmp_home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Call it with arguments as typed."""
    assert tmp_home.is_dir()

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Ran(code, written.out, written.err)

    return run
