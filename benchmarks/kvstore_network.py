"""Four validators of CometBFT's built-in kvstore: the peer that our CometBFT chain is measured beside.

Everything but the application is as on our chain: the same program and environment, the same config.toml apart from
`proxy_app`, the same genesis parameters. kvstore runs inside CometBFT and checks next to nothing, so it shows what the
engine alone can do on this machine.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dllm_protocol.genesis import Genesis
from full_node.consensus.cometbft.binary import find_cometbft
from full_node.consensus.cometbft.config import SOCKET_NAME, EngineConfig, Listen
from full_node.consensus.cometbft.files import EngineFolder, node_id, prepare_folder, write_files
from full_node.consensus.cometbft.process import engine_environment
from full_node.files import make_private_folder
from full_node.founding import Founding, found_chain, own_validator
from full_node.keys import create_key
from tests.full_node.cometbft.network import HOST, call, free_ports, until

HEARTBEAT_MS = 3_600_000
OUR_APPLICATION = f'proxy_app = "unix://{SOCKET_NAME}"'


@dataclass(frozen=True, slots=True)
class KvstoreNode:
    """One running validator."""

    address: str
    """host:port of its RPC."""
    pid: int


@contextmanager
def kvstore_network(folder: Path, validators: int) -> Iterator[list[KvstoreNode]]:
    """Starts the network and ends it."""
    places = [EngineFolder(folder / f"kvstore-{number}" / "cometbft") for number in range(validators)]
    ports = free_ports(2 * validators)
    rpc, p2p = ports[:validators], ports[validators:]
    genesis = _genesis(places)
    peers = [f"{node_id(place)}@{HOST}:{port}" for place, port in zip(places, p2p, strict=True)]
    with ExitStack() as running:
        nodes = []
        for number, place in enumerate(places):
            others = tuple(peer for at, peer in enumerate(peers) if at != number)
            config = EngineConfig(
                f"kvstore-{number}",
                Listen(HOST, rpc[number]),
                Listen(HOST, p2p[number]),
                peers=others,
                heartbeat_ms=HEARTBEAT_MS,
            )
            pid = running.enter_context(_node(place, genesis, config))
            nodes.append(KvstoreNode(f"{HOST}:{rpc[number]}", pid))
        for node in nodes:
            until("the first block of kvstore", partial(_height, f"http://{node.address}"))
        yield nodes


def _height(url: str) -> int:
    return int(call(url, "status")["sync_info"]["latest_block_height"])


def _genesis(places: list[EngineFolder]) -> Genesis:
    stakes = []
    for place in places:
        make_private_folder(place.root.parent)
        prepare_folder(place)
        key = create_key(place.root.parent / "consensus_key.json")
        stakes.append(own_validator(key.public_key, "", "local"))
    genesis = found_chain(Founding("kvstore", "local", stakes, (), seats=max(4, len(stakes))))
    return replace(genesis, params=replace(genesis.params, heartbeat_ms=HEARTBEAT_MS))


@contextmanager
def _node(place: EngineFolder, genesis: Genesis, config: EngineConfig) -> Iterator[int]:
    write_files(place, genesis, config)
    text = place.config.read_text("utf-8")
    if OUR_APPLICATION not in text:
        raise RuntimeError(f"{place.config} does not say {OUR_APPLICATION!r}")
    place.config.write_text(text.replace(OUR_APPLICATION, 'proxy_app = "kvstore"'), "utf-8")
    with (place.root / "cometbft.log").open("wb") as log:
        process = subprocess.Popen(
            [find_cometbft(), "start", "--home", str(place.root)],
            cwd=place.root,
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()
