"""What a devnet's parts wrote: the end of it, and what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from dllm_chat.devnet.errors import DevnetRefused
from dllm_chat.devnet.network import FAUCET, RELAY
from dllm_chat.devnet.plan import Folder, Plan

SUPERVISOR = "supervisor"
_TAIL_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024
_POLL_S = 0.3


@dataclass(slots=True)
class LogFile:
    """One file of one part, read on from where it was left."""

    part: str
    path: Path
    _position: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def tail(self, lines: int) -> list[str]:
        """The last lines; reading goes on behind them."""
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                file.seek(max(0, size - _TAIL_BYTES))
                data = file.read(_TAIL_BYTES)
                self._position = file.tell()
        except FileNotFoundError:
            return []
        return data.decode(errors="replace").splitlines()[-lines:] if lines else []

    def more(self) -> list[str]:
        """Whole lines that came since; from the beginning where the file was begun anew."""
        try:
            if self.path.stat().st_size < self._position:
                self._position, self._rest = 0, b""
            with self.path.open("rb") as file:
                file.seek(self._position)
                data = file.read(_READ_BYTES)
                self._position = file.tell()
        except FileNotFoundError:
            return []
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _READ_BYTES:  # a line without end is shown in pieces
            whole, self._rest = [*whole, self._rest], b""
        return [line.decode(errors="replace") for line in whole]


def log_files(folder: Folder, plan: Plan, part: str) -> list[LogFile]:
    """The files of a part, of all parts where none is named.

    Raises:
        DevnetRefused: there is no such part.
    """
    nodes = [node.name for node in plan.nodes]
    known = [*nodes, *plan.workers, FAUCET, *([RELAY] if plan.relay_port else []), SUPERVISOR]
    name = f"node-{part}" if part.isdigit() else part
    if name and name not in known:
        raise DevnetRefused(f"there is no part {name[:40]!r}", hint=f"there are: {', '.join(known)}")
    found = []
    for one in [name] if name else known:
        paths = [folder.logs / f"{one}.out"]
        if one in nodes:
            paths += [folder.node(one) / "logs" / "node.log", folder.node(one) / "logs" / "cometbft.log"]
        elif one in plan.workers:
            paths.append(folder.worker(one) / "worker.log")
        elif one in (FAUCET, RELAY):
            paths.append((folder.faucet if one == FAUCET else folder.relay) / "logs" / "node.log")
        else:
            paths.append(folder.logs / "supervisor.log")
        found += [LogFile(one, path) for path in paths]
    return found


async def follow(files: list[LogFile]) -> AsyncIterator[tuple[str, str]]:
    """(part, line) as they come, for ever."""
    while True:
        for file in files:
            for line in file.more():
                yield file.part, line
        await asyncio.sleep(_POLL_S)
