"""What the documents point at is there."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from tests.architecture.sources import PACKAGES, ROOT, Source, project_sources

LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
CODE_PATH = re.compile(
    r"`((?:" + "|".join((*PACKAGES, "tests", "tools", "benchmarks", "requirements")) + r")/[\w./-]+)`"
)
STATUS = re.compile(r"^- Status: (proposed|accepted|superseded by \d{4})", re.M)


def documents() -> list[Source]:
    return [source for source in project_sources() if source.path.suffix == ".md"]


def dangling(source: Source) -> list[str]:
    """Relative links and paths in code quotes that lead nowhere."""
    beside = (ROOT / source.path).parent
    missing = [link for link in LINK.findall(source.text) if not (beside / link).exists()]
    return missing + [path for path in CODE_PATH.findall(source.text) if not (ROOT / path).exists()]


def test_every_link_and_path_leads_somewhere() -> None:
    broken = {str(source.path): found for source in documents() if (found := dangling(source))}
    assert not broken


def test_a_dangling_link_and_path_are_found() -> None:
    text = "[a](no-such.md) and `dllm_chat/no_such.py` but [b](README.md) and `tests/conftest.py`"
    assert dangling(Source(PurePosixPath("docs/a.md"), text)) == ["no-such.md", "dllm_chat/no_such.py"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/decisions").glob("[0-9]*.md")), ids=lambda path: path.stem
)
def test_a_decision_says_its_status_and_the_ways_not_taken(path: PurePosixPath) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert text.startswith("# " + ("NNNN" if path.name.startswith("0000") else path.name[:4]))
    assert path.name.startswith("0000") or STATUS.search(text)
    assert all(
        f"\n## {heading}\n" in text for heading in ("Context", "Decision", "Consequences", "Instead of")
    )
