"""Counting tests by family while pytest runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest


@dataclass
class Family:
    """How one family came out."""

    total: int = 0
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    """Names of the tests that failed."""
    absent: set[str] = field(default_factory=set)
    """Why some did not run."""


class Families:
    """A pytest plugin that adds up outcomes by the mark's first argument."""

    def __init__(self, mark: str) -> None:
        """Args:
        mark: name of the mark whose argument is the family.
        """
        self._mark = mark
        self._family_of: dict[str, str] = {}
        self._families: dict[str, Family] = {}

    @property
    def counted(self) -> bool:
        """Whether there was anything to count."""
        return bool(self._families)

    @property
    def failed(self) -> bool:
        """Whether anything failed."""
        return any(family.failed for family in self._families.values())

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Notes which family each chosen test belongs to."""
        for item in session.items:
            if (mark := item.get_closest_marker(self._mark)) is not None:
                name = str(mark.args[0])
                self._family_of[item.nodeid] = name
                self._families.setdefault(name, Family()).total += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts one phase of one test."""
        name = self._family_of.get(report.nodeid)
        if name is None:
            return
        family = self._families[name]
        if report.failed:
            family.failed.append(report.nodeid)
        elif report.skipped:
            words = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            family.absent.add(words.removeprefix("Skipped: "))
        elif report.when == "call":
            family.passed += 1

    def lines(self) -> Sequence[str]:
        """`family passed/total`, one line each, sorted; why something is absent or failed stands behind."""
        return [_line(name, family) for name, family in sorted(self._families.items())]


def _line(name: str, family: Family) -> str:
    line = f"{name} {family.passed}/{family.total}"
    if family.failed:
        line += f" FAILED: {', '.join(sorted(set(family.failed)))}"
    if family.absent:
        line += f" absent: {'; '.join(sorted(family.absent))}"
    return line
