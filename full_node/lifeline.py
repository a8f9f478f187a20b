"""When a node shall stop: signals, and the lifeline to whoever started it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def watch_for_stop(*, lifeline: bool) -> asyncio.Event:
    """An event that is set at SIGTERM or SIGINT; with a lifeline also when standard input ends, i.e. when its
    holder is gone.

    To be called before the node says that it runs: whoever reads that may ask it to stop at once, and a signal
    that comes before its handler kills without tidying up.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if lifeline:
        loop.add_reader(sys.stdin.fileno(), _read_lifeline, loop, told)
    return told


def _read_lifeline(loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        told.set()


def die_with_parent() -> None:
    """Asks Linux to send SIGTERM when the parent dies, for parents that leave the lifeline open in a third
    process.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)  # it died before we asked
