"""Chunk files of a benchmark's model, cut once a machine and kept beside it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local_worker.model_files import DEFAULT_RESERVE
from local_worker.packages.assembling import assemble
from local_worker.packages.packing import ManifestTerms, pack


def cut(model: Path, bounds: Sequence[int]) -> list[Path]:
    """The chunks [bounds[0], bounds[1]), [bounds[1], bounds[2]), … of a model, as a worker assembles them."""
    paths = [model.with_name(f"{model.stem}.{first}-{end}.gguf") for first, end in itertools.pairwise(bounds)]
    if manifest_file(model).exists() and all(path.exists() for path in paths):
        return paths
    with tempfile.TemporaryDirectory(dir=model.parent) as name:
        package = Path(name) / "package"
        manifest = pack(model, package, ManifestTerms("bench", DEFAULT_RESERVE), lambda *_: None)
        for path, (first, end) in zip(paths, itertools.pairwise(bounds), strict=True):
            assemble(package, manifest, first, end, path)
        manifest_file(model).write_bytes(manifest.encode())
    return paths


def manifest_file(model: Path) -> Path:
    """Where the manifest of a model that was cut is kept."""
    return model.with_suffix(".manifest")
