"""GGUF models that this machine already has, where other programs keep them.

Names, sizes and a file's first eight bytes are looked at; nothing in a model file is parsed here, because model
files are hostile until proven (the engine process parses them).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dllm_chat.sanitize import clean_line

GGUF_MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
MIN_BYTES = 1 << 20
"""Smaller files are vocabularies and adapters."""
MAX_FOUND = 100
MAX_VISITED = 20_000
"""Folder entries looked at in one place."""
MAX_DEPTH = 6
MAX_MANIFEST_BYTES = 1 << 20
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LATER_SHARD = re.compile(r"-(?!00001-of)\d{5}-of-\d{5}\.gguf$", re.I)
_NOT_A_MODEL = re.compile(r"mmproj|imatrix|ggml-vocab|[.-]lora[.-]", re.I)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A GGUF file on this machine."""

    path: Path
    name: str
    """One harmless line for people."""
    size_bytes: int
    source: str
    """Whose folder it lies in: ``Ollama``, ``LM Studio``, ``llama.cpp``, ``Hugging Face`` or ``GPT4All``."""


def find_models(home: Path | None = None) -> list[FoundModel]:
    """All models found, by source and name; at most `MAX_FOUND`, each file once.

    Args:
        home: the person's home folder; their own by default.
    """
    home = Path.home() if home is None else home
    found: dict[Path, FoundModel] = {}
    for model in itertools.chain(_from_ollama(home), _from_folders(home)):
        found.setdefault(model.path.resolve(), model)
        if len(found) >= MAX_FOUND:
            break
    return sorted(found.values(), key=lambda model: (model.source, model.name.lower()))


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF of a version that llama.cpp reads; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return False
    return head[:4] == GGUF_MAGIC and int.from_bytes(head[4:8], "little") in SUPPORTED_VERSIONS


def _environment_folder(name: str) -> list[Path]:
    value = os.environ.get(name, "")
    return [Path(value).expanduser()] if value else []


def _cache(home: Path) -> Path:
    explicit = _environment_folder("XDG_CACHE_HOME")
    return explicit[0] if explicit else home / ".cache"


def _folders(home: Path) -> Iterator[tuple[str, Path]]:
    for folder in [home / ".lmstudio" / "models", _cache(home) / "lm-studio" / "models"]:
        yield "LM Studio", folder
    llama_cpp = [*_environment_folder("LLAMA_CACHE"), _cache(home) / "llama.cpp"]
    if sys.platform == "darwin":
        llama_cpp.append(home / "Library" / "Caches" / "llama.cpp")
    for folder in llama_cpp:
        yield "llama.cpp", folder
    hugging_face = [
        *_environment_folder("HF_HUB_CACHE"),
        *(folder / "hub" for folder in _environment_folder("HF_HOME")),
        _cache(home) / "huggingface" / "hub",
    ]
    for folder in hugging_face:
        yield "Hugging Face", folder
    gpt4all = [
        home / ".local" / "share" / "nomic.ai" / "GPT4All",
        home / "Library" / "Application Support" / "nomic.ai" / "GPT4All",
        _cache(home) / "gpt4all",
    ]
    for folder in gpt4all:
        yield "GPT4All", folder


def _from_folders(home: Path) -> Iterator[FoundModel]:
    for source, folder in _folders(home):
        for path in _walk(folder):
            name = path.name
            if not name.lower().endswith(".gguf") or _LATER_SHARD.search(name) or _NOT_A_MODEL.search(name):
                continue
            model = _found(path, path.stem, source)
            if model is not None:
                yield model


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, bounded in number and depth; unreadable folders are passed over."""
    visited = 0
    for current, subfolders, files in os.walk(folder):
        if len(Path(current).relative_to(folder).parts) >= MAX_DEPTH:
            subfolders.clear()
        subfolders.sort()
        for file in sorted(files):
            visited += 1
            if visited > MAX_VISITED:
                return
            yield Path(current, file)


def _found(path: Path, name: str, source: str) -> FoundModel | None:
    try:
        size_bytes = path.stat().st_size
    except OSError:
        return None
    if size_bytes < MIN_BYTES or not is_gguf(path):
        return None
    return FoundModel(path, clean_line(name, 80), size_bytes, source)


def _from_ollama(home: Path) -> Iterator[FoundModel]:
    """Ollama keeps ``manifests/REGISTRY/NAMESPACE/NAME/TAG`` (JSON) and ``blobs/sha256-…``."""
    places = [
        *_environment_folder("OLLAMA_MODELS"),
        home / ".ollama" / "models",
        Path("/usr/share/ollama/.ollama/models"),
        Path("/var/lib/ollama/models"),
    ]
    for models in places:
        for manifest in _walk(models / "manifests"):
            digest = _ollama_model_digest(manifest)
            if not digest:
                continue
            namespace, name, tag = (["", "", "", *list(manifest.parts)])[-3:]
            shown = f"{name}:{tag}" if namespace == "library" else f"{namespace}/{name}:{tag}"
            model = _found(models / "blobs" / digest.replace(":", "-"), shown, "Ollama")
            if model is not None:
                yield model


def _ollama_model_digest(manifest: Path) -> str:
    """Digest of the weights that a manifest names; empty where it names none in a form we know."""
    try:
        with manifest.open("rb") as file:
            document = json.loads(file.read(MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return ""
    layers = document.get("layers") if isinstance(document, dict) else None
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and layer.get("mediaType") == _OLLAMA_MODEL:
            digest = layer.get("digest")
            return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""
    return ""
