"""A `dllm-node` that writes down every ABCI request with its answer, a pair of hex words a line, as they come."""

from __future__ import annotations

import os
from pathlib import Path

from full_node.cli import run as run_node
from full_node.consensus.abci.server import AbciServer

NAMED_BY = "DLLM_TEST_ABCI_RECORD"


def run() -> None:
    """`dllm-node`, recording into the file that the environment names."""
    answered = AbciServer.answer
    with Path(os.environ[NAMED_BY]).open("a") as file:

        def answer(server: AbciServer, message: bytes) -> bytes:
            found = answered(server, message)
            file.write(f"{message.hex()} {found.hex()}\n")
            file.flush()
            return found

        AbciServer.answer = answer  # type: ignore[method-assign]  # to listen in
        run_node()
