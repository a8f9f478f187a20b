"""The process that holds a devnet: starts its parts, does what is asked of them, and ends with all of them.

One a folder, guarded by a kernel lock. The parts hang on lifelines: when this process goes, in whatever way, they go.
It is a process of its own (``python -m dllm_chat.devnet.supervisor``), or runs inside ``dllm devnet up --foreground``.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dllm_chat.devnet.network import Devnet
from dllm_chat.devnet.plan import Folder, NodePlan, Plan
from dllm_chat.devnet.slices import Slot
from dllm_chat.embedded.wire import MAX_LINE_BYTES, SupervisorLost, read_line, send_line
from dllm_chat.paths import LockBusy, file_lock, make_private_folder, write_private
from dllm_protocol.errors import DllmError
from light_node.log_file import log_to

MAX_CALLERS = 64
TOKEN_TIMEOUT_S = 5.0
LAST_WORDS_S = 30.0
"""How long a supervisor that could not start waits for whoever started it, to tell the reason."""
BUSY = 75
"""Exit code where another supervisor holds the folder."""
log = logging.getLogger("dllm.devnet")


@dataclass(frozen=True, slots=True)
class Order:
    """What to bring up.

    Attributes:
        plan: found this devnet first; None where the folder has one.
        fund: addresses of other wallets that its genesis funds.
    """

    plan: Plan | None = None
    fund: tuple[bytes, ...] = ()

    def to_text(self) -> str:
        """For a command line."""
        return json.dumps(
            {"plan": asdict(self.plan) if self.plan else None, "fund": [one.hex() for one in self.fund]}
        )

    @classmethod
    def from_text(cls, text: str) -> Order:
        """What `to_text` wrote."""
        found = json.loads(text)
        plan = found["plan"]
        if plan is not None:
            nodes = tuple(NodePlan(**node) for node in plan["nodes"])
            slots = tuple(Slot(**slot) for slot in plan["slots"])
            workers, cuts = tuple(plan["workers"]), tuple(plan["cuts"])
            plan = Plan(**plan | {"nodes": nodes, "workers": workers, "slots": slots, "cuts": cuts})
        return cls(plan, tuple(bytes.fromhex(one) for one in found["fund"]))


class Supervisor:
    """Runs one devnet and answers those who ask about it."""

    def __init__(self, folder: Folder, order: Order, *, has_starter: bool) -> None:
        """Prepare.

        Args:
            has_starter: another process waits for the start, and hears how it goes through the door.
        """
        self._folder = folder
        self._order = order
        self._devnet = Devnet(folder)
        self._token = secrets.token_hex(32)
        self._callers = 0
        self._progress = "starting"
        self._news = asyncio.Condition()
        self._outcome: dict[str, Any] | None = None
        self._stop = asyncio.Event()
        self._orders = asyncio.Lock()
        self._has_starter = has_starter
        self._told = asyncio.Event()

    async def run(
        self, on_progress: Callable[[str], None], on_ready: Callable[[dict[str, Any]], None]
    ) -> None:
        """Serve until told to stop: by a caller, a signal, or whoever waits for the start and goes away.

        Raises:
            DllmError: it could not be started.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_LINE_BYTES)
        port = server.sockets[0].getsockname()[1]
        write_private(self._folder.door, json.dumps({"port": port, "token": self._token}).encode())
        self._tell, self._tell_ready = on_progress, on_ready
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            await stopped
        finally:
            self._folder.door.unlink(missing_ok=True)
            server.close()
            for task in (starting, stopped):
                task.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)
            log.info("stopping")
            await self._devnet.stop()

    async def _start(self) -> None:
        """Bring the devnet up and tell whoever waits."""
        try:
            ready = await self._devnet.start(self._order.plan, self._order.fund, self._say)
        except DllmError as error:
            log.error("cannot start: %s", error.message)
            await self._settle({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
            if self._has_starter:
                with contextlib.suppress(TimeoutError):  # a starter that died asks no more
                    await asyncio.wait_for(self._told.wait(), LAST_WORDS_S)
            raise
        await self._settle({"ready": ready})
        self._tell_ready(ready)

    async def _settle(self, outcome: dict[str, Any]) -> None:
        async with self._news:
            self._outcome = outcome
            self._news.notify_all()

    async def _say(self, text: str) -> None:
        log.info("%s", text)
        self._tell(text)
        async with self._news:
            self._progress = text
            self._news.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller: token and purpose, progress until it runs, then requests until the connection ends."""
        if self._callers >= MAX_CALLERS:
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
        self._callers += 1
        try:
            if hello.get("starter"):
                await self._welcome(reader, writer)
            while (request := await read_line(reader)) is not None:
                await send_line(writer, await self._answer(request))
        except (ConnectionError, SupervisorLost) as error:
            log.info("a caller went: %s", error)
        finally:
            self._callers -= 1
            writer.close()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell a starter how far it is. One that goes before the end takes the devnet along: nobody knows of it."""
        gone = asyncio.create_task(reader.read(1))
        telling = asyncio.create_task(self._tell_progress(writer))
        try:
            await asyncio.wait({gone, telling}, return_when=asyncio.FIRST_COMPLETED)
            if not telling.done():
                log.info("whoever started this went away")
                self._stop.set()
        finally:
            for task in (gone, telling):
                task.cancel()
            await asyncio.gather(gone, telling, return_exceptions=True)

    async def _tell_progress(self, writer: asyncio.StreamWriter) -> None:
        said = ""
        while True:
            async with self._news:
                while self._outcome is None and self._progress == said:
                    await self._news.wait()
                outcome, said = self._outcome, self._progress
            await send_line(writer, outcome or {"progress": said})
            if outcome is not None:
                self._told.set()
                return

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        part = str(request.get("part", ""))
        try:
            match request.get("op"):
                case "pids":
                    return {"pids": self._devnet.pids()}
                case "kill":
                    async with self._orders:
                        await self._devnet.kill(part)
                case "restart":
                    async with self._orders:
                        await self._devnet.restart(part)
                case "down":
                    self._stop.set()
                case other:
                    return {"error": {"code": "E_USAGE", "message": f"unknown request {other!r}", "hint": ""}}
        except DllmError as error:
            return {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        return {"done": True}


def hold_and_run(
    root: Path,
    order: Order,
    on_progress: Callable[[str], None] = lambda text: None,
    on_ready: Callable[[dict[str, Any]], None] = lambda ready: None,
    *,
    has_starter: bool = False,
) -> None:
    """Run the devnet of a folder in this process until it is told to stop.

    Raises:
        LockBusy: another supervisor holds the folder.
        DllmError: it could not be started.
    """
    folder = Folder(make_private_folder(root))
    with file_lock(folder.lock, timeout_s=0.5):
        asyncio.run(Supervisor(folder, order, has_starter=has_starter).run(on_progress, on_ready))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the supervisor of one folder; `BUSY` where another one runs, 3 where it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m dllm_chat.devnet.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--order", required=True)
    given = parser.parse_args(arguments)
    log_to(make_private_folder(given.home / "logs") / "supervisor.log")
    try:
        hold_and_run(given.home, Order.from_text(given.order), has_starter=True)
    except LockBusy:
        return BUSY
    except DllmError as error:
        log.error("%s", error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
