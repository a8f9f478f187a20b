"""A person at a terminal: `dllm` under a pty, read and typed at."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

GIVE_UP_S = 60.0
WORD = re.compile(r"(\d+) ([a-z]+)")


class Terminal:
    """One run of `dllm` on a terminal of its own."""

    def __init__(self, home: Path, *arguments: str, term: str = "xterm") -> None:
        environment = {**os.environ, "DLLM_HOME": str(home), "TERM": term}
        command = [sys.executable, "-m", "dllm_chat.cli.main", *arguments]
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            os.execvpe(command[0], command, environment)
        self.seen = ""
        self._at = 0

    def until(self, text: str) -> str:
        """Read until a text has come; returns everything since the last call, to its end."""
        deadline = time.monotonic() + GIVE_UP_S
        while (found := self.seen.find(text, self._at)) < 0:
            assert time.monotonic() < deadline, f"{text!r} never came; there is {self.seen[self._at :]!r}"
            assert self._read(), f"ended before {text!r}; there is {self.seen[self._at :]!r}"
        begun, self._at = self._at, found + len(text)
        return self.seen[begun : self._at]

    def type(self, line: str) -> None:
        os.write(self._terminal, line.encode() + b"\n")

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def _read(self) -> bool:
        if not select.select([self._terminal], [], [], GIVE_UP_S)[0]:
            return False
        try:
            new = os.read(self._terminal, 65536)
        except OSError:  # Linux says so when the other side is closed
            return False
        self.seen += new.decode(errors="replace")
        return bool(new)


def words_on(page: str) -> list[str]:
    """The numbered words that a page shows, in order."""
    return [word for _, word in sorted((int(number), word) for number, word in WORD.findall(page))]
