"""What a real CometBFT asked of real nodes, and what they answered: `tests/vectors/abci.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dllm_protocol.genesis import Genesis

FILE = Path(__file__).resolve().parents[3] / "vectors" / "abci.json"


@dataclass(frozen=True)
class Exchange:
    """One request with its answer, as they went over the socket (the answer with its length before it)."""

    kind: str
    request: bytes
    response: bytes


@cache
def document() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def genesis() -> Genesis:
    """The chain that was recorded."""
    return Genesis.decode(bytes.fromhex(document()["genesis"]))


def conversation(name: str) -> list[Exchange]:
    """`validator`: a node from its first question on; `taker`: one that began from a snapshot."""
    return [
        Exchange(one["kind"], bytes.fromhex(one["request"]), bytes.fromhex(one["response"]))
        for one in document()[name]
    ]
