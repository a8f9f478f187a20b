"""The files that the house rules look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dllm_protocol", "full_node", "light_node", "local_worker", "dllm_chat")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".lock", ".in", ".sh", ".txt", ".tcss", ".json", ".cfg", ".yml", ""}
NOT_OURS = {
    ".git", ".venv", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache",
    ".import_linter_cache", ".hypothesis", "dllm.egg-info", "node_modules",
}  # fmt: skip
LONGEST_TEXT_BYTES = 2_000_000


@dataclass(frozen=True)
class Source:
    """One file of the project, or a made-up one that a rule is tried on."""

    path: PurePosixPath
    """Relative to the root of the project."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file; only for Python files."""
        return ast.parse(self.text, filename=str(self.path))

    @property
    def is_python(self) -> bool:
        """Whether the file can be parsed."""
        return self.path.suffix == ".py"

    @property
    def is_product(self) -> bool:
        """Whether the file ships."""
        return self.is_python and self.path.parts[0] in PACKAGES

    @property
    def is_test(self) -> bool:
        """Whether the file stands under tests/."""
        return self.path.parts[0] == "tests"

    def line(self, number: int) -> str:
        """The text of one line, counted from 1; empty beyond the file's ends."""
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in NOT_OURS or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


def project_sources() -> list[Source]:
    """Every text file of the project, in a fixed order."""
    found = []
    for path in _walk(ROOT):
        if path.suffix in TEXT_SUFFIXES and path.stat().st_size <= LONGEST_TEXT_BYTES:
            relative = PurePosixPath(path.relative_to(ROOT).as_posix())
            found.append(Source(relative, path.read_text("utf-8", "replace")))
    return found
