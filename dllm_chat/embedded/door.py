"""Join the embedded network: find its supervisor or start one, and hold a lease as long as it is needed.

The lease is an open connection: however its holder ends, the supervisor notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dllm_chat.embedded.wire import (
    DOOR_FILE,
    LOCK_FILE,
    MAX_LINE_BYTES,
    EmbeddedFailed,
    SupervisorLost,
    read_line,
    send_line,
)
from dllm_chat.paths import LockBusy, Paths, file_lock, make_private_folder
from dllm_protocol.bundle import NetworkBundle, SignedBundle
from dllm_protocol.errors import MalformedBytes

START_TIMEOUT_S = 90.0
"""A cold start on a slow machine: node, two engines, registration."""
FIRST_WORD_S = 5.0
"""A supervisor says at once how far it is; somebody who does not is none."""
MAX_STARTS = 5
SUPERVISOR_OUT = "supervisor.out"
_POLL_S = 0.05


class EmbeddedLease:
    """A hold on the running embedded network."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, home: Path, ready: dict[str, Any]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()
        self.home = home
        self.preferred_model = str(ready.get("model", ""))
        self.bundle = _load_bundle(home)

    @property
    def wallet_folder(self) -> Path:
        """Where the play wallet lies."""
        return self.home / "wallet"

    @property
    def worker_home(self) -> Path:
        """Home of the worker that the person contributes with."""
        return self.home / "worker-own"

    @property
    def lost(self) -> bool:
        """Whether the supervisor is gone, and the network with it."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Ask the supervisor for something.

        Raises:
            SupervisorLost, EmbeddedFailed
        """
        async with self._lock:
            try:
                await send_line(self._writer, message)
                answer = await read_line(self._reader)
            except ConnectionError as error:
                raise SupervisorLost("the embedded network stopped") from error
        if answer is None:
            raise SupervisorLost("the embedded network stopped", hint="run the command again: it starts anew")
        if "error" in answer:
            raise EmbeddedFailed(str(answer["error"]), hint=str(answer.get("hint", "")))
        return answer

    async def release(self) -> None:
        """Let go; the network lingers a while for the next user."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):  # it may be gone already
            await self._writer.wait_closed()


async def join_embedded(
    paths: Paths, linger_s: int, on_progress: Callable[[str], None], model_file: str = ""
) -> EmbeddedLease:
    """A lease on this home's embedded network, started if need be.

    Args:
        model_file: GGUF for a network that is not running yet; empty: the model in the package.

    Raises:
        EmbeddedFailed: it cannot be started, with the reason.
    """
    home = make_private_folder(paths.embedded)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await _join_or_start(home, linger_s, on_progress, model_file)
    except TimeoutError as error:
        raise EmbeddedFailed(
            f"the embedded network did not start within {START_TIMEOUT_S:g} s", hint=f"see {home / 'logs'}"
        ) from error


async def _join_or_start(
    home: Path, linger_s: int, on_progress: Callable[[str], None], model_file: str
) -> EmbeddedLease:
    """Try the door; where nobody holds the home, start a supervisor. One that is stopping is waited for."""
    started: subprocess.Popen[bytes] | None = None
    starts = 0
    while True:
        lease = await _try_join(home, on_progress)
        if lease is not None:
            return lease
        ours_is_gone = started is None or started.poll() is not None
        if ours_is_gone and _nobody_holds(home):
            if starts == MAX_STARTS:
                raise EmbeddedFailed(
                    f"the embedded network's supervisor ended {starts} times: {_last_words(home)}",
                    hint=f"see {home / 'logs'}",
                )
            on_progress("starting the embedded network")
            started = _start_supervisor(home, linger_s, model_file)
            starts += 1
        await asyncio.sleep(_POLL_S)


async def _try_join(home: Path, on_progress: Callable[[str], None]) -> EmbeddedLease | None:
    """A lease from a supervisor that runs; None where none does."""
    found = _read_door(home)
    if found is None:
        return None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", found["port"], limit=MAX_LINE_BYTES)
    except OSError:
        return None
    joined = False
    try:
        ready = await _be_welcomed(reader, writer, found["token"], on_progress)
        if ready is None:
            return None
        lease = EmbeddedLease(reader, writer, home, ready)
        joined = True
    except (ConnectionError, SupervisorLost, TimeoutError):
        return None  # on its way out, or a stranger who was given the port of a dead one
    else:
        return lease
    finally:
        if not joined:
            writer.close()


async def _be_welcomed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str, on_progress: Callable[[str], None]
) -> dict[str, Any] | None:
    """Show the token and listen until the network is ready; None where the supervisor hung up."""
    await send_line(writer, {"token": token})
    async with asyncio.timeout(FIRST_WORD_S):
        message = await read_line(reader)
    while message is not None:
        if "error" in message:
            raise EmbeddedFailed(str(message["error"]), hint=str(message.get("hint", "")))
        if "ready" in message:
            return dict(message["ready"])
        on_progress(str(message.get("progress", "")))
        message = await read_line(reader)
    return None


def _start_supervisor(home: Path, linger_s: int, model_file: str) -> subprocess.Popen[bytes]:
    """Start a supervisor of its own session; where another one runs already, the new one ends at once."""
    logs = make_private_folder(home / "logs")
    command = [sys.executable, "-m", "dllm_chat.embedded.supervisor"]
    command += ["--home", str(home), "--linger-s", str(linger_s)]
    if model_file:
        command += ["--model", str(Path(model_file).absolute())]
    with (logs / SUPERVISOR_OUT).open("wb") as out:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=home,
        )


def _nobody_holds(home: Path) -> bool:
    """Whether no supervisor runs; then what the last one left at the door is swept away.

    Holding the lock meanwhile, so that the door of one that starts at this moment is never taken for an old one.
    """
    try:
        with file_lock(home / LOCK_FILE, timeout_s=0.0):
            (home / DOOR_FILE).unlink(missing_ok=True)
            return True
    except LockBusy:
        return False


def _last_words(home: Path) -> str:
    """The end of what the supervisor printed."""
    try:
        return (home / "logs" / SUPERVISOR_OUT).read_bytes()[-400:].decode(errors="replace").strip()
    except OSError:
        return "it said nothing"


def _read_door(home: Path) -> dict[str, Any] | None:
    """Port and token of the supervisor, as it wrote them; None where there is no usable file."""
    try:
        found = json.loads((home / DOOR_FILE).read_text())
    except (OSError, ValueError):
        return None
    if isinstance(found, dict) and isinstance(found.get("port"), int) and isinstance(found.get("token"), str):
        return found
    return None


def _load_bundle(home: Path) -> NetworkBundle:
    try:
        return SignedBundle.decode((home / "bundle").read_bytes()).bundle
    except (OSError, MalformedBytes) as error:
        raise EmbeddedFailed(f"the embedded network's description cannot be read: {error}") from error


def supervisor_running(home: Path) -> bool:
    """Whether a supervisor holds this home now."""
    try:
        with file_lock(home / LOCK_FILE, timeout_s=0.0):
            return False
    except LockBusy:
        return True
