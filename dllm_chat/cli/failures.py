"""What went wrong, in one word for scripts, one sentence for people and one exit code.

0 ok · 1 internal · 2 usage · 3 network · 4 timeout · 5 refused by the chain · 6 not found · 7 wallet locked ·
8 verification failed · 9 declined · 130 interrupted
"""

from __future__ import annotations

import os
import traceback
from datetime import UTC, datetime
from pathlib import Path

from dllm_chat.cli.output import Failure
from dllm_chat.paths import find_paths, make_private_folder
from dllm_chat.version import VERSION
from dllm_protocol.errors import DllmError, NetworkUnreachable
from dllm_protocol.log_lines import VALUE_CHARACTERS_MAX, LogForm, log_line

INTERRUPTED = Failure("E_INTERRUPTED", 130, "interrupted")
LOG_NAME = "dllm.log"
COMMANDS_THAT_HELP = {
    "E_ROOT_EXPIRED": "take a new trust root that two nodes agree on: dllm light trust refresh",
}
MAX_LOG_BYTES = 1 << 20


def failure_of(error: DllmError) -> Failure:
    """One of the errors that we declare; where a command helps, the hint names it."""
    hint = COMMANDS_THAT_HELP.get(error.code, error.hint)
    if isinstance(error, NetworkUnreachable):
        hint = _of_a_devnet() or hint
    return Failure(error.code, error.exit_code, error.message, hint)


def _of_a_devnet() -> str:
    """How the nodes in use are started again, where they are a devnet's of this home and were killed."""
    from dllm_chat.devnet.hints import restart_hint

    try:
        return restart_hint(find_paths())
    except DllmError:
        return ""


def usage_failure(message: str, hint: str = "") -> Failure:
    """A command line that makes no sense."""
    return Failure("E_USAGE", 2, message, hint)


def internal_failure(error: BaseException) -> Failure:
    """A fault of our own: its traceback goes to the log file, never to the terminal."""
    kind = type(error).__name__
    try:
        log = _log(error)
    except (OSError, DllmError) as unwritable:
        return Failure("E_INTERNAL", 1, f"a fault in dllm: {kind}", f"it could not be logged: {unwritable}")
    return Failure("E_INTERNAL", 1, f"a fault in dllm: {kind}", f"what happened stands in {log}")


def _log(error: BaseException) -> Path:
    """Append a traceback to the private log file; one older file is kept."""
    log = make_private_folder(find_paths().logs) / LOG_NAME
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        "level": "error",
        "logger": "dllm",
        "version": VERSION,
        "message": f"a fault in dllm: {type(error).__name__}",
        # The innermost frames say most, and stand last.
        "traceback": "".join(traceback.format_exception(error))[-VALUE_CHARACTERS_MAX:],
    }
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(log_line(LogForm.JSON, entry) + "\n")
    return log
