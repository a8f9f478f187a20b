"""How long a person waits: for ``dllm --version`` beside Python itself, and for the first screen of ``dllm-chat``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.runner import Result, interleaved_medians

NAME = "startup"
ROUNDS = 15
PAINTS = 5
FIRST_PAINT_TARGET_S = 0.5
GIVE_UP_S = 30.0
ROWS, COLUMNS = 24, 80
ALTERNATE_SCREEN = b"\x1b[?1049h"
QUIT_KEY = b"\x11"
# CSI, OSC and two-byte sequences; what is left are cells.
ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_].*?\x1b\\|[ -/]*[0-~])", re.S
)


def script(name: str) -> Path:
    """One of the project's console scripts, beside the running interpreter.

    Raises:
        FileNotFoundError: the project is not installed here.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `make setup`")
    return path


def wall_s(command: list[str]) -> float:
    """Seconds until a command has ended well."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def cells_painted(output: bytes) -> int:
    """How many character cells were written since the alternate screen was entered; 0 before that.

    Args:
        output: everything that the program has sent to the terminal.
    """
    _, entered, painted = output.partition(ALTERNATE_SCREEN)
    if not entered:
        return 0
    text = ESCAPES.sub(b"", painted).decode("utf-8", "ignore")
    return sum(character.isprintable() for character in text)


def stop(child: int, terminal: int) -> None:
    """Asks the program to quit as a person would, then less politely; the terminal is drained meanwhile."""
    with contextlib.suppress(OSError):
        os.write(terminal, QUIT_KEY)
    for wait_s, signal_number in ((3.0, signal.SIGTERM), (3.0, signal.SIGKILL), (3.0, None)):
        until = time.perf_counter() + wait_s
        while time.perf_counter() < until:
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            if select.select([terminal], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    os.read(terminal, 65536)
        if signal_number is not None:
            os.kill(child, signal_number)


def first_paint_s(command: list[str], home: Path) -> float:
    """Seconds from starting a full-screen program to its having written every cell of an 80×24 terminal once.

    Args:
        command: the program.
        home: its ``DLLM_HOME``.

    Raises:
        TimeoutError: it never painted.
    """
    environment = {**os.environ, "DLLM_HOME": str(home), "DLLM_LINGER_S": "0", "TERM": "xterm-256color"}
    begun = time.perf_counter()
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, environment)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        output = b""
        while time.perf_counter() - begun < GIVE_UP_S:
            if not select.select([terminal], [], [], 0.05)[0]:
                continue
            try:
                output += os.read(terminal, 65536)
            except OSError as gone:
                raise TimeoutError(f"{command[0]} ended before it painted: {output[-400:]!r}") from gone
            if cells_painted(output) >= ROWS * COLUMNS:
                return time.perf_counter() - begun
        raise TimeoutError(f"{command[0]} did not paint {ROWS}×{COLUMNS} cells in {GIVE_UP_S} s")
    finally:
        stop(child, terminal)
        os.close(terminal)


def run() -> Iterator[Result]:
    """Both waits; the first as a ratio to an empty Python, the second to its target."""
    version = [str(script("dllm")), "--version"]
    empty = [sys.executable, "-c", "pass"]
    ours, theirs = interleaved_medians(lambda: wall_s(version), lambda: wall_s(empty), rounds=ROUNDS)
    yield Result.of(f"{NAME}/version", ours, "s", "python -c pass", theirs)

    paints = []
    for _ in range(PAINTS):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            paints.append(first_paint_s([str(script("dllm-chat"))], Path(home)))
    yield Result.of(f"{NAME}/first-paint", statistics.median(paints), "s", "target", FIRST_PAINT_TARGET_S)
