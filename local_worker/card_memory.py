"""How much memory graphics cards have free, asked in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Final

from local_worker.engine.process import bare_environment

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 60.0
"""A driver may take its time when it is first used."""
_MOST_BYTES: Final = 1 << 50


async def free_card_bytes(module: str = "local_worker.engine.cards") -> int:
    """Of all cards together; 0 where there is none, or none that answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=bare_environment(),
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        return read_free_bytes(said)
    except (TimeoutError, ValueError) as error:
        _log.warning("graphics cards are left out of account, they gave no answer: %s", error)
        return 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def read_free_bytes(said: bytes) -> int:
    """The sum of what was said.

    Raises:
        ValueError: it is no list of sizes.
    """
    found = json.loads(said)
    if not isinstance(found, list) or not all(type(one) is int and 0 <= one <= _MOST_BYTES for one in found):
        raise ValueError("what was said is no list of sizes")
    return sum(found)
