"""Models are found by name, size and magic, wherever other programs keep them, and hostile files stay unread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllm_chat.models_found import MIN_BYTES, FoundModel, find_models, is_gguf

HEAD = b"GGUF\x03\x00\x00\x00"
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def no_explicit_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_MODELS", "XDG_CACHE_HOME", "LLAMA_CACHE", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)


def put(path: Path, head: bytes = HEAD, size_bytes: int = MIN_BYTES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size_bytes)
    return path


def put_manifest(home: Path, name: str, digest: object = DIGEST) -> None:
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "00" * 32},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest},
    ]
    path = home / ".ollama/models/manifests/registry.ollama.ai" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))


def test_an_empty_home_has_none(tmp_path: Path) -> None:
    assert [model for model in find_models(tmp_path) if model.path.is_relative_to(tmp_path)] == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        (".lmstudio/models/maker/model/Tiny-Q4_K_M.gguf", "LM Studio"),
        (".cache/lm-studio/models/maker/model/Tiny-Q4_K_M.gguf", "LM Studio"),
        (".cache/llama.cpp/Tiny-Q4_K_M.gguf", "llama.cpp"),
        (".cache/huggingface/hub/models--a--b/snapshots/1234/Tiny-Q4_K_M.gguf", "Hugging Face"),
        (".local/share/nomic.ai/GPT4All/Tiny-Q4_K_M.gguf", "GPT4All"),
    ],
)
def test_each_programs_folder_is_looked_at(tmp_path: Path, place: str, source: str) -> None:
    path = put(tmp_path / place)
    assert FoundModel(path, "Tiny-Q4_K_M", MIN_BYTES, source) in find_models(tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("library/llama3.2/3b", "llama3.2:3b"), ("someone/tiny/latest", "someone/tiny:latest")],
)
def test_ollamas_manifests_lead_to_blobs(tmp_path: Path, name: str, shown: str) -> None:
    put_manifest(tmp_path, name)
    blob = put(tmp_path / ".ollama/models/blobs" / DIGEST.replace(":", "-"))
    assert FoundModel(blob, shown, MIN_BYTES, "Ollama") in find_models(tmp_path)


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "sha256:AB", 7, None])
def test_a_manifest_cannot_lead_elsewhere(tmp_path: Path, digest: object) -> None:
    put_manifest(tmp_path, "library/evil/1", digest)
    assert not [model for model in find_models(tmp_path) if model.name == "evil:1"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"layers": 3}', '{"layers": [3]}', "[" * 100_000])
def test_a_broken_manifest_is_passed_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".ollama/models/manifests/registry.ollama.ai/library/broken/1"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert not [model for model in find_models(tmp_path) if "broken" in model.name]


@pytest.mark.parametrize(
    ("name", "head", "size_bytes"),
    [
        ("no-magic.gguf", b"GGML\x03\x00\x00\x00", MIN_BYTES),
        ("version-1.gguf", b"GGUF\x01\x00\x00\x00", MIN_BYTES),
        ("big-endian.gguf", b"GGUF\x00\x00\x00\x03", MIN_BYTES),
        ("small.gguf", HEAD, MIN_BYTES - 1),
        ("shard-00002-of-00003.gguf", HEAD, MIN_BYTES),
        ("mmproj-model.gguf", HEAD, MIN_BYTES),
        ("weights.safetensors", HEAD, MIN_BYTES),
    ],
)
def test_what_is_no_model_is_not_offered(tmp_path: Path, name: str, head: bytes, size_bytes: int) -> None:
    put(tmp_path / ".cache/llama.cpp" / name, head, size_bytes)
    assert not [model for model in find_models(tmp_path) if model.path.is_relative_to(tmp_path)]


def test_the_first_shard_stands_for_all(tmp_path: Path) -> None:
    put(tmp_path / ".cache/llama.cpp/big-00001-of-00003.gguf")
    assert [m.name for m in find_models(tmp_path) if m.source == "llama.cpp"] == ["big-00001-of-00003"]


def test_one_file_behind_two_names_is_offered_once(tmp_path: Path) -> None:
    path = put(tmp_path / ".cache/llama.cpp/one.gguf")
    (tmp_path / ".cache/llama.cpp/two.gguf").symlink_to(path)
    assert len([m for m in find_models(tmp_path) if m.source == "llama.cpp"]) == 1


def test_names_are_harmless(tmp_path: Path) -> None:
    put(tmp_path / ".cache/llama.cpp/a\x1b]0;x\x07\u202eb.gguf")
    assert [m.name for m in find_models(tmp_path) if m.source == "llama.cpp"] == ["a]0;xb"]


def test_explicit_places_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "elsewhere"))
    put(tmp_path / "elsewhere/model.gguf")
    assert "model" in [m.name for m in find_models(tmp_path / "nobody")]


def test_a_missing_file_is_no_gguf(tmp_path: Path) -> None:
    assert not is_gguf(tmp_path / "missing.gguf")
