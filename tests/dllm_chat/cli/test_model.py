"""Models of other programs are found by name, without a network."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from dllm_chat.cli.output import size_text
from dllm_chat.contributing import packaged_model
from dllm_chat.models_found import MIN_BYTES
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord
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
    said = dllm("model", "show", package).out
    assert f"manifest hash    {wanted}" in said
    assert f"size             {size_text(packed.data['size_bytes'])}" in said and "bytes" not in said
    assert dllm("model", "verify", package, "--manifest-hash", wanted, "--json").data["verified"] is True
    chunk = dllm("model", "assemble", package, "--layers", "1:3", "--out", part, "--json")
    assert chunk.data["size_bytes"] == part.stat().st_size
    refused = dllm("model", "assemble", package, "--layers", "3:9", "--out", part, "--json")
    assert (refused.code, refused.error["code"]) == (2, "E_LAYERS")
    twice = dllm("model", "pack", packaged_model(), "--out", package, "--json")
    assert (twice.code, twice.error["code"]) == (2, "E_OUTPUT")


def test_a_package_is_seeded_and_fetched(
    dllm: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a package's folder, and by a registered model's name, whose manifest the light node would have proved."""
    pytest.importorskip("libtorrent", reason="needs libtorrent")
    package, out, named = tmp_path / "g.package", tmp_path / "out", tmp_path / "named"
    packed = dllm("model", "pack", packaged_model(), "--out", package, "--name", "my-guide", "--json").data
    monkeypatch.setattr("dllm_chat.cli.service.watching", _watching(package))
    with _seeding(package) as (seeding, place):
        peer = ("--peer", place)
        fetched = dllm("model", "fetch", package, "--layers", "1:3", *peer, "--out", out, "--json").data
        assert (fetched["piece_count"], fetched["manifest_hash"]) == (4, packed["manifest_hash"])
        said = dllm("model", "fetch", "my-guide", "--layers", ":1", *peer, "--out", named)
        assert "piece count    4" in said.out and said.code == 0
        other = ("--manifest-hash", "00" * 32, "--json")
        refused = dllm("model", "fetch", "my-guide", *peer, "--out", tmp_path / "no", *other)
        assert (refused.code, refused.error["code"]) == (8, "E_VERIFY")
        unknown = dllm("model", "fetch", "nobodys", *peer, "--out", tmp_path / "no", "--json")
        assert (unknown.code, unknown.error["code"]) == (6, "E_NOT_FOUND")
        assert not (tmp_path / "no").exists()
        seeding.send_signal(signal.SIGINT)
        assert seeding.wait(30) == 0
    assert dllm("model", "assemble", named, "--layers", ":1", "--out", tmp_path / "part.gguf").code == 0
    taken = dllm("model", "seed", package, "--listen", "192.0.2.1:1", "--json")
    assert (taken.code, taken.error["code"]) == (2, "E_LISTEN")


@contextmanager
def _seeding(package: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`dllm model seed`, and where it listens."""
    words = ("model", "seed", str(package), "--listen", "127.0.0.1:0", "--upload-limit", "50M", "--json")
    command = [sys.executable, "-m", "dllm_chat.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())["data"]
            assert (told["state"], told["piece_count"]) == ("seeding", 8)
            yield process, told["listen"]
        finally:
            process.terminate()


def _watching(package: Path) -> object:
    """A network with one model in its registry."""
    manifest = Manifest.decode((package / "manifest").read_bytes())

    class Reads:
        async def provable_height(self) -> int:
            return 1

        async def models(self, _height: int) -> list[str]:
            return [manifest.name]

        async def model(self, name: str, _height: int) -> ModelRecord | None:
            return ModelRecord(bytes(20), manifest, 0, MODEL_ACTIVE) if name == manifest.name else None

    @asynccontextmanager
    async def watching() -> AsyncIterator[object]:
        yield SimpleNamespace(chain=SimpleNamespace(reads=Reads()))

    return watching
