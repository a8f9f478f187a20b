"""Starts and ends the engine's process: a bare environment, one socket, its words into a log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from local_worker.cores import usable_cores

_KEPT_VARIABLES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
)
MAX_LOG_BYTES = 1 << 20
_SOCKET_BUFFER_BYTES = 1 << 20


def default_threads() -> int:
    """Threads for decoding: half of the cores that this process may use, at least one.

    Decoding is bound by memory bandwidth, which half of the cores nearly exhaust. llama.cpp's threads wait for each
    other by spinning, some hundred times a token: where anything else wants one of their cores, every token waits
    for it. Measured on two cores with 134M parameters in Q8_0: two threads 4.6 ms a token with nothing beside them
    but 16 to 230 ms on busy cores, one thread 4.8 to 7.9 ms on busy cores.
    """
    return max(1, usable_cores() // 2)


def bare_environment() -> dict[str, str]:
    """What processes that load llama.cpp get of this one's environment: no secrets, and nothing that steers Python."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}


class EngineProcess:
    """A child process and where it writes its log."""

    def __init__(
        self, process: asyncio.subprocess.Process, log_path: Path, handing: socket.socket | None = None
    ) -> None:
        """``handing``: what connections are handed over by; none where the system cannot."""
        self._process = process
        self._handing = handing
        self.log_path = log_path

    def hand_over(self, number: int, connection: socket.socket) -> bool:
        """Give the process a connection of ours, under a number: whether it went. Ours is closed in any case."""
        with connection:
            if self._handing is None:
                return False
            try:
                socket.send_fds(self._handing, [struct.pack("<I", number)], [connection.fileno()])
            except OSError:
                return False
            return True

    @property
    def pid(self) -> int:
        """Process id, of an ended process too."""
        return self._process.pid

    @classmethod
    async def start(
        cls, model_path: Path, options: Sequence[str], log_path: Path
    ) -> tuple[EngineProcess, socket.socket]:
        """The process and our end of its socket; ``options`` are its command line's."""
        ours, theirs = socket.socketpair()
        handing, handed = socket.socketpair(type=socket.SOCK_DGRAM)
        with theirs, handed:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            ours.setblocking(False)
            handing.setblocking(False)
            log = _open_log(log_path)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "local_worker.engine"),
                    *(f"--model={model_path}", "--socket-fd", str(theirs.fileno())),
                    *("--lanes-fd", str(handed.fileno())),
                    *options,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(), handed.fileno()),
                    env=bare_environment(),
                )
            except BaseException:
                ours.close()
                handing.close()
                raise
            finally:
                os.close(log)
        return cls(process, log_path, handing), ours

    async def end(self, timeout_s: float) -> str:
        """Wait for the end that a closed socket brings, then insist: how it ended, in words."""
        try:
            code = await asyncio.wait_for(asyncio.shield(self._process.wait()), timeout_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            code = await self._process.wait()
        if self._handing is not None:
            self._handing.close()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


def _open_log(path: Path) -> int:
    """Descriptor to append to; a log that has grown large is kept once as ``….1``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
