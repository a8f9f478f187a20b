"""One node for all of the proxy's tests: its chain is only added to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from full_node.home import NodeHome, read_genesis
from tests.full_node.processes import NodeProcess, Sender, init_with
from tests.light_node.proxy.rig import ChainNode, send


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainNode]:
    """A node of a fresh chain with three transfers in it."""
    home: Path = tmp_path_factory.mktemp("proxied") / "home"
    sender = Sender.numbered(9)
    init_with(home, [sender])
    process = NodeProcess.start(home, "--lifeline")
    try:
        made = ChainNode(process, read_genesis(NodeHome(home).genesis), sender, [])
        for _ in range(3):
            made.transfers.append(asyncio.run(send(made)))
        yield made
    finally:
        process.stop()
