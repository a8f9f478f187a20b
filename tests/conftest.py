"""What every test may lean on: vectors, an empty home, settled randomness, and no silent skips."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from full_node.consensus.cometbft.binary import NAMED_BY, find_cometbft, is_cometbft_here
from tests.local_worker.memory_limits import is_group_makeable
from tools.conformance.go_verifier import is_go_verifier_buildable

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile(
    "long",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=2000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background deaf to Ctrl-C, and so would be all programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Text is as wide as the terminal: that of whoever runs the tests is no part of them.
os.environ |= {"COLUMNS": "80", "LINES": "24"}


def vectors_folder() -> Path:
    """Where other implementations' test vectors lie, if this machine has them."""
    named = os.environ.get("DLLM_SHARED_VECTORS")
    return Path(named) if named else ROOT.parent / "shared" / "vectors"


KEPT_SETTINGS = {"DLLM_SHARED_VECTORS", "DLLM_FORBID_SKIPS", NAMED_BY}

# Reason for a skip (its beginning) -> does that reason hold on this machine?
ALLOWED_SKIPS: dict[str, Callable[[], bool]] = {
    "needs shared vectors": lambda: not vectors_folder().is_dir(),
    "needs the cometbft binary": lambda: not is_cometbft_here(),
    "needs Go with cosmos/ics23": lambda: not is_go_verifier_buildable(),
    "needs a GPU": lambda: not Path("/dev/nvidia0").exists() and shutil.which("nvidia-smi") is None,
    "needs libtorrent": lambda: sys.version_info >= (3, 14) and find_spec("libtorrent") is None,
    "needs an ordinary user": lambda: hasattr(os, "geteuid") and os.geteuid() == 0,
    "needs a control group": lambda: not is_group_makeable(),
    "needs Linux": lambda: not Path("/proc/self").exists(),
}


@pytest.fixture(scope="session")
def shared_vectors() -> Path:
    """Folder of test vectors from other implementations (``DLLM_SHARED_VECTORS``, else ../shared/vectors)."""
    folder = vectors_folder()
    if not folder.is_dir():
        pytest.skip(f"needs shared vectors in {folder}")
    return folder


@pytest.fixture(scope="session")
def cometbft() -> Path:
    """The consensus engine's program, as a node would find it."""
    if not is_cometbft_here():
        pytest.skip("needs the cometbft binary: run `make cometbft`")
    return find_cometbft()


@pytest.fixture
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``DLLM_HOME`` and ``HOME`` of this test's own, with every other setting of ours taken away."""
    for name in list(os.environ):
        if name.startswith(("DLLM_", "XDG_")) and name not in KEPT_SETTINGS:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DLLM_HOME", str(home))
    # Lest a test of the wallet opens the keyring of the person who runs it.
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return home


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The words with which a test was skipped or expected to fail."""
    if isinstance(getattr(report, "wasxfail", None), str):
        return f"expected failure: {report.wasxfail}"
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def skip_is_allowed(reason: str) -> bool:
    """Whether the reason is on the list and true here."""
    return any(reason.startswith(known) and holds() for known, holds in ALLOWED_SKIPS.items())


class SkipWatch:
    """With ``DLLM_FORBID_SKIPS=1`` a test that could run here and was skipped fails the run."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Remembers a skip that this machine gives no reason for."""
        if report.skipped and not skip_is_allowed(skip_reason(report)):
            self.refused.append(f"{report.nodeid}: {skip_reason(report)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test is over."""
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """One file was read; a skipped file is a skip of all its tests."""
        self.note(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
        """Turns green into red; last, because syrupy merges its own bits into the exit status."""
        finished = yield
        if self.refused and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return finished

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says which, and how to allow one."""
        if self.refused:
            terminalreporter.section("skipped although this machine can run it", sep="=", red=True)
            for line in self.refused:
                terminalreporter.line(line)
            terminalreporter.line(
                "A reason that depends on the machine goes into ALLOWED_SKIPS of tests/conftest.py."
            )


def pytest_configure(config: pytest.Config) -> None:
    """Only the process that prints the summary watches; workers send it their reports."""
    if os.environ.get("DLLM_FORBID_SKIPS") == "1" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipWatch(), "dllm-skip-watch")
