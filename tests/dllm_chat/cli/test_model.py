"""Models of other programs are found by name, without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_chat.contributing import packaged_model
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


def test_a_model_is_packed_shown_verified_and_assembled(dllm: Callable[..., Ran], tmp_path: Path) -> None:
    package, part = tmp_path / "g.package", tmp_path / "part.gguf"
    packed = dllm("model", "pack", packaged_model(), "--out", package, "--name", "my-guide", "--json")
    assert (packed.data["name"], packed.data["layers"], packed.data["piece_count"]) == ("my-guide", 4, 8)
    assert "… packing block 3 (6/7)" in packed.err
    assert "… packing probe of block 3 (4/4)" in packed.err
    shown = dllm("model", "show", package, "--json")
    assert len(shown.data["pieces"]) == 8
    wanted = packed.data["manifest_hash"]
    assert f"manifest hash    {wanted}" in dllm("model", "show", package).out
    assert dllm("model", "verify", package, "--manifest-hash", wanted, "--json").data["verified"] is True
    chunk = dllm("model", "assemble", package, "--layers", "1:3", "--out", part, "--json")
    assert chunk.data["size_bytes"] == part.stat().st_size
    refused = dllm("model", "assemble", package, "--layers", "3:9", "--out", part, "--json")
    assert (refused.code, refused.error["code"]) == (2, "E_LAYERS")
    twice = dllm("model", "pack", packaged_model(), "--out", package, "--json")
    assert (twice.code, twice.error["code"]) == (2, "E_OUTPUT")
