"""One node for all tests of a module: its chain is only added to. Modules name the engines that they want."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from full_node.home import NodeHome, read_genesis
from tests.full_node.cometbft.network import Network
from tests.full_node.processes import NodeProcess, Sender, init_with
from tests.light_node.proxy.rig import ChainNode, send

SENDER = 9


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module's ``ENGINES`` are those that its node runs on; the solo engine where there is none."""
    if "node" in metafunc.fixturenames:
        engines = getattr(metafunc.module, "ENGINES", ("solo",))
        metafunc.parametrize("node", engines, indirect=True, scope="module")


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainNode]:
    """A node of a fresh chain with three transfers in it."""
    folder = tmp_path_factory.mktemp("proxied")
    if request.param == "cometbft":
        request.getfixturevalue("cometbft")
    opened = _on_cometbft(folder) if request.param == "cometbft" else _on_solo(folder)
    with opened as made:
        for _ in range(3):
            made.transfers.append(asyncio.run(send(made)))
        yield made


@contextmanager
def _on_solo(folder: Path) -> Iterator[ChainNode]:
    home = folder / "home"
    sender = Sender.numbered(SENDER)
    init_with(home, [sender])
    process = NodeProcess.start(home, "--lifeline")
    try:
        yield ChainNode(process.address, read_genesis(NodeHome(home).genesis), sender)
    finally:
        process.stop()


@contextmanager
def _on_cometbft(folder: Path) -> Iterator[ChainNode]:
    """The RPC is CometBFT's own."""
    with Network.start(folder, validators=2) as network:
        network.wait_for_height(1)
        address = network.nodes[0].url.removeprefix("http://")
        yield ChainNode(address, network.genesis, network.sender(SENDER))
