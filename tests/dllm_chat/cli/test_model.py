"""Models of other programs are found by name, without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_chat.models_found import MIN_BYTES
from tests.dllm_chat.cli.conftest import Ran


def test_models_of_other_programs_are_found(
    dllm: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "tiny\x1b.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(MIN_BYTES))
    monkeypatch.setenv("LLAMA_CACHE", str(folder))
    ran = dllm("model", "found", "--json")
    assert [(one["name"], one["source"]) for one in ran.data["models"]] == [("tiny", "llama.cpp")]
    said = dllm("model", "found")
    assert "tiny" in said.out
    assert "\x1b" not in said.out
