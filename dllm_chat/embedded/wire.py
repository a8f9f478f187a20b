"""What a program and the supervisor say to each other: JSON lines over loopback, opened with a token."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from dllm_protocol.errors import DllmError, NetworkUnreachable

MAX_LINE_BYTES = 64 * 1024
DOOR_FILE = "supervisor.json"
"""Port and token of the supervisor that runs."""
LOCK_FILE = "supervisor.lock"
"""Held by the supervisor as long as it lives."""


class SupervisorLost(NetworkUnreachable):
    """The supervisor hung up or talks nonsense."""

    code = "E_EMBEDDED"


class EmbeddedFailed(DllmError):
    """The embedded network could not be started, and why."""

    code = "E_EMBEDDED"
    exit_code = 3


async def send_line(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Send one message."""
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def read_line(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None at the end.

    Raises:
        SupervisorLost: not a JSON object, or too long.
    """
    try:
        line = await reader.readline()
    except (ValueError, ConnectionError) as error:
        raise SupervisorLost(f"the embedded network's supervisor sent an unusable line: {error}") from error
    if not line:
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise SupervisorLost("the embedded network's supervisor sent something that is not JSON") from error
    if not isinstance(message, dict):
        raise SupervisorLost("the embedded network's supervisor sent something that is not an object")
    return message
