"""Keep other processes, and core dumps, away from the keys in our memory."""

from __future__ import annotations

import ctypes
import resource
import sys
from dataclasses import dataclass

PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Hardening:
    """What could be done on this system."""

    no_core_dumps: bool
    not_traceable: bool


def harden_process() -> Hardening:
    """No core dumps (RLIMIT_CORE = 0) and, on Linux, no ptrace or /proc/PID/mem by our own user's processes.

    Call it once at start, before a password is read. Children inherit the first and not the second. Python
    cannot wipe all copies of a secret, so that nobody may read this process's memory is what protects it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return Hardening(no_core_dumps=True, not_traceable=_deny_tracing())


def _deny_tracing() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    status: int = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    return status == 0
