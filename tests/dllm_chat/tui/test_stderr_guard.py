"""Native writes go to the log, drawing goes to the terminal."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from dllm_chat.tui.stderr_guard import guarded_terminal
with guarded_terminal(Path(sys.argv[1])):
    os.write(2, b"native error\\n")
    os.write(1, b"native output\\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child\\\\n')"], check=True)
    sys.__stderr__.write("drawn\\n")
    sys.__stderr__.flush()
os.write(2, b"after\\n")
"""


def run(log: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)], capture_output=True, text=True, check=True
    )


def test_native_code_and_children_cannot_write_on_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "native.log"
    done = run(log)
    assert done.stdout == ""
    assert done.stderr == "drawn\nafter\n"
    assert log.read_text() == "native error\nnative output\nchild\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_long_log_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "native.log"
    log.write_bytes(b"x" * (1 << 20) + b"y")
    run(log)
    assert log.read_text().startswith("native error\n")
