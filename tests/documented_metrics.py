"""The names of metrics that docs/operating/metrics.md lists, by program."""

from __future__ import annotations

import re

from tests.conftest import ROOT

_ROW = re.compile(r"^\| `(dllm_(\w+?)_\w+)` \|(.*)$", re.M)


def documented(program: str, without: str = "") -> set[str]:
    """Names of one program: ``node``, ``worker`` or ``light``.

    Args:
        without: leaves rows away that say so, for example those that only one engine has.
    """
    text = (ROOT / "docs" / "operating" / "metrics.md").read_text("utf-8")
    return {
        name
        for name, owner, rest in _ROW.findall(text)
        if owner == program and not (without and f"({without} only)" in rest)
    }
