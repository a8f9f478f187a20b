"""Machines for end-to-end tests: everything runs in real processes on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, running_machine


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lest settings of the person who runs the tests get in."""
    for name in ("DLLM_HOME", "DLLM_LINGER_S", "DLLM_MODEL", "DLLM_MODEL_FILE", "DLLM_WALLET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A fresh machine of this test's own."""
    with running_machine(tmp_path / "home") as found:
        yield found


@pytest.fixture(scope="module")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that the tests of a module share; they leave it running."""
    with running_machine(tmp_path_factory.mktemp("shared") / "home", linger_s=300) as found:
        yield found
