"""With DLLM_FORBID_SKIPS=1 a skip that this machine gives no reason for turns a run red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

CONFTEST = "from tests.conftest import pytest_configure as pytest_configure\n"
SKIPPED = "import pytest\n\ndef test_a():\n    pytest.skip({reason!r})\n\ndef test_b():\n    assert True\n"
WHOLE_FILE = "import pytest\npytest.skip('no wish', allow_module_level=True)\n"
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail(reason='later')\ndef test_a():\n    assert not 1\n"


def run(folder: Path, text: str, *, forbid: bool, processes: int) -> subprocess.CompletedProcess[str]:
    """Runs one test file under our watch, in a folder and a configuration of its own."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_one.py").write_text(text)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DLLM_"))
    }
    environment |= {"PYTHONPATH": str(ROOT), "DLLM_SHARED_VECTORS": str(folder / "absent")}
    environment |= {"DLLM_FORBID_SKIPS": "1"} if forbid else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(processes)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("text", [SKIPPED.format(reason="no wish"), WHOLE_FILE, EXPECTED_FAILURE])
def test_an_unexplained_skip_fails_the_run(tmp_path: Path, text: str, processes: int) -> None:
    done = run(tmp_path, text, forbid=True, processes=processes)
    assert done.returncode == 1, done.stdout
    assert "skipped although this machine can run it" in done.stdout


@pytest.mark.parametrize("processes", [0, 1])
def test_a_reason_that_holds_here_is_allowed(tmp_path: Path, processes: int) -> None:
    text = SKIPPED.format(reason="needs shared vectors in a folder")
    assert run(tmp_path, text, forbid=True, processes=processes).returncode == 0


def test_without_the_switch_a_skip_is_a_skip(tmp_path: Path) -> None:
    assert run(tmp_path, SKIPPED.format(reason="no wish"), forbid=False, processes=0).returncode == 0
