"""The process behind the embedded network: starts node and workers, restarts what dies, lingers, and ends clean.

One a home, guarded by a kernel lock. Children hang on lifelines: when this process goes, in whatever way, they go.
Whoever uses the network keeps a connection open; the last one gone, it waits ``linger_s`` and stops.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dllm_chat.embedded.network import LocalNetwork
from dllm_chat.embedded.wire import (
    DOOR_FILE,
    LOCK_FILE,
    MAX_LINE_BYTES,
    SupervisorLost,
    read_line,
    send_line,
)
from dllm_chat.paths import LockBusy, file_lock, make_private_folder, write_private
from dllm_chat.serving_from import ServingFrom
from dllm_protocol.errors import DllmError
from light_node.log_file import log_to

MAX_USERS = 64
TOKEN_TIMEOUT_S = 5.0
log = logging.getLogger("dllm.embedded")


class Supervisor:
    """Serves leases on one `LocalNetwork`."""

    def __init__(self, home: Path, linger_s: int, model: Path | None) -> None:
        self._network = LocalNetwork(home, model)
        self._home = home
        self._linger_s = linger_s
        self._token = secrets.token_hex(32)
        self._users = 0
        self._idle_since = time.monotonic()
        self._progress = "starting"
        self._news = asyncio.Condition()
        self._outcome: dict[str, Any] | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until nobody has used the network for the linger time, or a signal asks to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_LINE_BYTES)
        port = server.sockets[0].getsockname()[1]
        door = json.dumps({"port": port, "token": self._token})
        write_private(self._home / DOOR_FILE, door.encode())
        starting = asyncio.create_task(self._start())
        try:
            await self._wait_until_unused(starting)
        finally:
            (self._home / DOOR_FILE).unlink(missing_ok=True)
            server.close()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._network.stop()

    async def _start(self) -> None:
        """Bring the network up and tell whoever waits."""
        try:
            ready = await self._network.start(self._say)
            outcome: dict[str, Any] = {"ready": ready}
        except DllmError as error:
            log.error("cannot start: %s", error.message)
            outcome = {"error": error.message, "hint": error.hint}
        except OSError as error:
            log.exception("cannot start")
            outcome = {"error": f"the embedded network cannot start: {error}", "hint": "is the disk full?"}
        async with self._news:
            self._outcome = outcome
            self._news.notify_all()
        if "error" in outcome:
            await asyncio.sleep(1.0)  # those who wait read the reason
            self._stop.set()

    async def _say(self, text: str) -> None:
        log.info("%s", text)
        async with self._news:
            self._progress = text
            self._news.notify_all()

    async def _wait_until_unused(self, starting: asyncio.Task[None]) -> None:
        while not self._stop.is_set():
            if starting.done():
                starting.result()  # a defect: end with it, so that those who wait see it
            if self._users == 0 and time.monotonic() - self._idle_since >= self._linger_s and self._outcome:
                log.info("unused for %s s: stopping", self._linger_s)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.25)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One user: token, progress until ready, then requests until the connection ends."""
        if self._users >= MAX_USERS:
            writer.close()
            return
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT_S):
                hello = await read_line(reader)
        except (TimeoutError, SupervisorLost):
            hello = None
        if hello is None or not secrets.compare_digest(str(hello.get("token", "")), self._token):
            writer.close()
            return
        self._users += 1
        try:
            await self._welcome(writer)
            while (request := await read_line(reader)) is not None:
                await send_line(writer, await self._answer(request))
        except (ConnectionError, SupervisorLost) as error:
            log.info("a user went: %s", error)
        finally:
            self._users -= 1
            self._idle_since = time.monotonic()
            writer.close()

    async def _welcome(self, writer: asyncio.StreamWriter) -> None:
        said = ""
        while True:
            async with self._news:
                while self._outcome is None and self._progress == said:
                    await self._news.wait()
                outcome, said = self._outcome, self._progress
            await send_line(writer, outcome or {"progress": said})
            if outcome is not None:
                return

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            match request.get("op"):
                case "worker_on":
                    await self._network.worker_on(
                        str(request.get("owner", "")),
                        str(request.get("model", "")),
                        ServingFrom.of_request(request.get("server")),
                    )
                case "worker_off":
                    await self._network.worker_off()
                case "status":
                    return {"status": self._network.status()}
                case other:
                    return {"error": f"unknown request {other!r}"}
        except DllmError as error:
            return {"error": error.message, "hint": error.hint}
        return {"done": True}


def main() -> int:
    """Run the supervisor of one home; at once 0 where another one runs."""
    parser = argparse.ArgumentParser(prog="python -m dllm_chat.embedded.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--linger-s", type=int, default=20)
    parser.add_argument("--model", default="", help="GGUF that the workers serve; empty: the packaged one")
    arguments = parser.parse_args()
    home = make_private_folder(arguments.home)
    log_to(make_private_folder(home / "logs") / "supervisor.log")
    try:
        with file_lock(home / LOCK_FILE, timeout_s=0.5):
            model = Path(arguments.model) if arguments.model else None
            asyncio.run(Supervisor(home, arguments.linger_s, model).run())
    except LockBusy:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
