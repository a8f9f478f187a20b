"""Find a devnet's supervisor, start one, speak with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dllm_chat.devnet.errors import DevnetFailed, DevnetRefused, NoDevnet
from dllm_chat.devnet.plan import Folder
from dllm_chat.devnet.supervisor import Order
from dllm_chat.embedded.wire import MAX_LINE_BYTES, SupervisorLost, read_line, send_line
from dllm_chat.paths import LockBusy, file_lock, make_private_folder
from dllm_protocol.errors import TimedOut

FIND_TIMEOUT_S = 30.0
"""A Python process that starts on a busy machine, until it listens."""
ANSWER_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 90.0
SUPERVISOR_OUT = "supervisor.out"
_POLL_S = 0.05
_TAIL_CHARACTERS = 400


class Caller:
    """A connection to a devnet's supervisor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self, op: str, part: str = "") -> dict[str, Any]:
        """Ask for something.

        Raises:
            DevnetFailed: the supervisor's reason, or it went away.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await send_line(self._writer, {"op": op, "part": part})
                answer = await read_line(self._reader)
        except (ConnectionError, TimeoutError) as error:
            raise SupervisorLost("the devnet's supervisor does not answer") from error
        if answer is None:
            raise SupervisorLost("the devnet's supervisor went away")
        return _checked(answer)

    async def until_ready(self, on_progress: Callable[[str], None]) -> dict[str, Any]:
        """Listen until the devnet runs; going away before that ends it.

        Raises:
            DevnetFailed: it could not be started, and why.
        """
        while (message := await read_line(self._reader)) is not None:
            if "ready" in _checked(message):
                return dict(message["ready"])
            on_progress(str(message.get("progress", "")))
        raise DevnetFailed("the devnet's supervisor ended while it started")


@asynccontextmanager
async def calling(folder: Folder, *, starter: bool = False) -> AsyncIterator[Caller]:
    """A connection to the supervisor that runs.

    Args:
        starter: the devnet is starting for us: hear how far it is.

    Raises:
        NoDevnet: none runs.
    """
    try:
        door = json.loads(folder.door.read_text())
        port, token = int(door["port"]), str(door["token"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MAX_LINE_BYTES)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoDevnet(f"no devnet runs in {folder.root}", hint="dllm devnet up starts it") from error
    try:
        await send_line(writer, {"token": token, "starter": starter})
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # it may be gone already
            await writer.wait_closed()


async def start_detached(folder: Folder, order: Order, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Start a supervisor of its own and wait until the devnet runs; returns what `Devnet.start` told.

    Raises:
        DevnetFailed: it could not be started, and why.
    """
    process = _spawn(folder, order)
    try:
        await _until_listening(folder, process)
        async with calling(folder, starter=True) as caller:
            return await caller.until_ready(on_progress)
    except BaseException:
        process.terminate()  # heard or not: whoever waits for it must not leave half a devnet
        await asyncio.to_thread(process.wait)
        raise


def _spawn(folder: Folder, order: Order) -> subprocess.Popen[bytes]:
    folder.door.unlink(missing_ok=True)  # of one that was killed: nobody holds the lock
    command = [sys.executable, "-m", "dllm_chat.devnet.supervisor"]
    command += ["--home", str(folder.root), "--order", order.to_text()]
    with (make_private_folder(folder.logs) / SUPERVISOR_OUT).open("wb") as out:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=folder.root,
        )


async def _until_listening(folder: Folder, process: subprocess.Popen[bytes]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FIND_TIMEOUT_S
    while not folder.door.exists():
        if process.poll() is not None or loop.time() > deadline:
            words = (folder.logs / SUPERVISOR_OUT).read_bytes().decode(errors="replace").strip()
            raise DevnetFailed(
                f"the devnet's supervisor does not run: {words[-_TAIL_CHARACTERS:] or 'it said nothing'}",
                hint=f"see {folder.logs}",
            )
        await asyncio.sleep(_POLL_S)


async def stop_running(folder: Folder) -> bool:
    """End the devnet that runs, and return when nothing of it is left; False where none ran.

    Raises:
        TimedOut: it is still stopping.
    """
    if not is_running(folder):
        return False
    with contextlib.suppress(NoDevnet):  # it is on its way out already
        async with calling(folder) as caller:
            await caller.request("down")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STOP_TIMEOUT_S
    while is_running(folder):
        if loop.time() > deadline:
            raise TimedOut(f"the devnet in {folder.root} is still stopping after {STOP_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S)
    return True


def is_running(folder: Folder) -> bool:
    """Whether a supervisor holds the folder now."""
    if not folder.lock.exists():
        return False  # and where nothing was, nothing is left by asking
    try:
        with file_lock(folder.lock, timeout_s=0.0):
            return False
    except LockBusy:
        return True


def _checked(message: dict[str, Any]) -> dict[str, Any]:
    """The message; its error as what it was on the other side."""
    if "error" not in message:
        return message
    error = message["error"]
    kinds = {kind.code: kind for kind in (DevnetRefused, NoDevnet)}
    raise kinds.get(str(error.get("code")), DevnetFailed)(
        str(error.get("message")), hint=str(error.get("hint", ""))
    )
