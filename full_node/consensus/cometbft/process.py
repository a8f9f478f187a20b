"""CometBFT as a child process: started, watched, ended; it never outlives this process.

A lock is held on a file that only the child keeps open. So whoever starts the next one knows when the last one, whose
parent was killed, is really gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import logging
import os
import signal
import socket
import sys
from collections import deque
from pathlib import Path

from dllm_protocol.errors import DllmError
from full_node.consensus.cometbft.config import Listen
from full_node.consensus.cometbft.files import EngineFolder
from full_node.node_log import FILE_BYTES, FILES_KEPT, PrivateRotatingFile

log = logging.getLogger(__name__)
LAST_ONE_GONE_S = 60.0
"""How long to wait for a CometBFT of before, which is ending."""
ANSWERS_S = 3600.0
"""How long CometBFT may take until its RPC listens; what it may have to replay first can be many blocks."""
STOP_S = 30.0
POLL_S = 0.05
TAIL_LINES = 12
LINE_BYTES_MAX = 8_192
GO_PROCESSORS_MIN = 4
_GO_PROCESSORS = "GOMAXPROCS"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class CometBftStopped(DllmError):
    """CometBFT ended although nobody asked it to, or did not begin."""

    code = "E_COMETBFT"
    exit_code = 3


class CannotListen(CometBftStopped):
    """An address that CometBFT shall listen on is taken, or not this machine's."""

    code = "E_LISTEN"
    exit_code = 2


class CometBft:
    """One run of the program."""

    def __init__(self, program: Path, folder: EngineFolder, log_file: Path, rpc: Listen, p2p: Listen) -> None:
        self._program = program
        self._folder = folder
        self._rpc = rpc
        self._p2p = p2p
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log = PrivateRotatingFile(
            log_file, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8"
        )
        self._child: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it; returns when its RPC listens. Raises CannotListen, CometBftStopped."""
        lock = await self._lock()
        try:
            # Else somebody else's port would be taken for ours as soon as it answers.
            for listen in (self._rpc, self._p2p):
                _require_free(listen)
            self._child = await asyncio.create_subprocess_exec(
                self._program,
                "start",
                "--home",
                str(self._folder.root),
                cwd=self._folder.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=engine_environment(),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in a terminal reaches us, and we end it in order
                preexec_fn=_die_with_parent,
            )
        finally:
            os.close(lock)
        self._pump = asyncio.create_task(self._keep_log(), name="cometbft-log")
        await self._until_it_listens()

    async def wait(self) -> None:
        """Raises CometBftStopped when it ends; returns never."""
        assert self._child is not None, "it was not started"
        assert self._pump is not None, "it was not started"
        status = await self._child.wait()
        await self._pump  # what it said last is worth most
        raise CometBftStopped(
            f"cometbft ended with status {status}:\n" + "\n".join(self._tail),
            hint=f"its log is {self._log.baseFilename}",
        )

    async def stop(self) -> None:
        """Ends it: asked at first, then made to. The application must answer until this returns."""
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._child.wait(), STOP_S)
            except TimeoutError:
                log.warning("cometbft did not end within %d s and is killed", STOP_S)
                self._child.kill()
                await self._child.wait()
        if self._pump is not None:
            await self._pump
        self._log.close()

    async def _lock(self) -> int:
        """The lock's descriptor for the child to inherit."""
        descriptor = os.open(self._folder.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + LAST_ONE_GONE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if loop.time() > deadline_s:
                    os.close(descriptor)
                    raise CometBftStopped(
                        f"another cometbft still runs in {self._folder.root}", hint="end it, then try again"
                    ) from None
                await asyncio.sleep(POLL_S)
            else:
                return descriptor

    async def _until_it_listens(self) -> None:
        ended = asyncio.ensure_future(self.wait())
        try:
            async with asyncio.timeout(ANSWERS_S):
                while not await self._listens():
                    done, _ = await asyncio.wait((ended,), timeout=POLL_S)
                    if done:
                        ended.result()
        except TimeoutError:
            raise CometBftStopped(
                f"cometbft's RPC does not listen on {self._rpc} after {ANSWERS_S:.0f} s",
                hint=f"its log is {self._log.baseFilename}",
            ) from None
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._rpc.host, self._rpc.port)
        except OSError:
            return False
        writer.close()
        return True

    async def _keep_log(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        rest = b""
        while data := await self._child.stdout.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-LINE_BYTES_MAX:]
            for line in lines:
                self._note(line)
        if rest:
            self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line[:LINE_BYTES_MAX].decode("utf-8", "replace")
        self._tail.append(text)
        self._log.emit(logging.LogRecord("cometbft", logging.INFO, "", 0, text, None, None))


def engine_environment() -> dict[str, str]:
    """CometBFT's environment: ours, and more of Go's processors than a small machine has.

    Between two checks CometBFT's ABCI client arms a timer of 20 ns (abci/client/socket_client.go counts milliseconds
    and Go takes nanoseconds), which fires anew until the goroutine that sends has had its turn. With a processor to
    spare that goroutine gets it at once; without one it waits until Go takes the timer's processor away, 10 ms later.
    """
    # Those that this process may use, as Go counts them: a machine may have many more than it was given.
    ours = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    count = max(GO_PROCESSORS_MIN, ours)
    return {_GO_PROCESSORS: str(count), **os.environ}


def _require_free(listen: Listen) -> None:
    """Raises CannotListen."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {listen}: {error.strerror or error}",
                hint="give another address; port 0 lets the system choose",
            ) from error


def _die_with_parent() -> None:
    """Between fork and exec: let Linux kill the child when we die, however we die.

    CometBFT's files survive a kill; a CometBFT without its application would only be in the next one's way.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
