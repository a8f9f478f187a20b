"""Stopping a node for good at a height, so that another program goes on from there.

A node that was told a halt height commits that block, makes or judges no other, and leaves a mark in its folder. The
mark keeps the same program from going on by mistake, say because a supervisor restarted it without the option.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from dllm_protocol.errors import DllmError, MalformedBytes, UsageRefused
from dllm_protocol.json_shape import shape
from full_node.files import write_private
from full_node.home import NodeHome
from full_node.state_machine.upgrades.released import RELEASE

MARK = "halted.json"
EXIT_HALTED = 10


class HaltReached(DllmError):
    """The node stopped where it was told to; not a failure, yet not a stop that somebody asked for just now."""

    code = "E_HALTED"
    exit_code = EXIT_HALTED


class HaltStands(UsageRefused):
    """The folder was stopped for another program than this one."""

    code = "E_HALT_STANDS"


@dataclass(frozen=True, slots=True)
class HaltMark:
    """Where a node stopped.

    Attributes:
        height: the last block.
        app_version: the rules of the program that stopped.
        app_hash: root of the state after that block, upper hex; the same on every node of the chain.
    """

    height: int
    app_version: int
    app_hash: str


@dataclass(frozen=True, slots=True)
class Halt:
    """What a node was told about halting.

    Attributes:
        height: no block is made or judged after this one; 0 = none.
        past_halt: the operator wants to go on with the program that halted.
    """

    height: int = 0
    past_halt: bool = False


def halt_at(home: NodeHome, height: int, app_hash: bytes) -> HaltReached:
    """Notes in the folder that it stopped, durably; returns what the node then says."""
    mark = HaltMark(height, RELEASE.app_version, app_hash.hex().upper())
    write_private(home.folder / MARK, json.dumps(asdict(mark)).encode() + b"\n")
    return _halted(mark)


def _halted(mark: HaltMark) -> HaltReached:
    return HaltReached(
        f"halted after height {mark.height} as told, app hash {mark.app_hash}",
        hint="compare the app hash with the other validators', then start the new program; see "
        "docs/operating/upgrade.md",
    )


def read_mark(home: NodeHome) -> HaltMark | None:
    """The folder's mark. Raises HaltStands where it cannot be read."""
    path = home.folder / MARK
    try:
        document = shape("halt mark", json.loads(path.read_bytes()), ("height", "app_version", "app_hash"))
        height, app_version, app_hash = (document[name] for name in ("height", "app_version", "app_hash"))
        if not (isinstance(height, int) and isinstance(app_version, int) and isinstance(app_hash, str)):
            raise ValueError("a field is of another type")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, MalformedBytes) as error:
        raise HaltStands(f"{path} cannot be read: {error}", hint="remove it to go on") from error
    return HaltMark(height, app_version, app_hash)


def require_not_halted(home: NodeHome, halt: Halt) -> None:
    """Refuses to go on in a folder that was stopped for another program than this one.

    Raises:
        HaltReached: it stands at the very height that this run is told to halt after.
        HaltStands: it was halted, and this is the program that was to be replaced.
    """
    mark = read_mark(home)
    if mark is None or halt.past_halt or mark.app_version != RELEASE.app_version:
        return
    if halt.height and mark.height >= halt.height:
        raise _halted(mark)
    raise HaltStands(
        f"this folder was halted after height {mark.height} for another program; "
        f"this one runs app version {mark.app_version} like the one that halted",
        hint="start the new program, or pass --past-halt to go on with this one",
    )


def clear_mark(home: NodeHome) -> None:
    """The chain goes on: the mark has done its work."""
    (home.folder / MARK).unlink(missing_ok=True)
