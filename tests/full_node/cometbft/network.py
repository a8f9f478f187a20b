"""Networks of real nodes on real CometBFT, on loopback, for tests.

    with Network.start(tmp_path, validators=4) as network:
        network.wait_for_height(3)
        network.nodes[0].kill()          # as a power cut: the node and its CometBFT
        network.nodes[0].restart()
        network.nodes[1].url             # http://127.0.0.1:…, .websocket, .home, .signer, .peer_address
        network.transfer(sender, …)      # waits until it stands in a block

Senders 1 to 9 (`tests.full_node.processes.Sender.numbered`) own 1000 DLLM each. Everything ends with the block, and
with the test's process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dllm_protocol.genesis import Genesis, GenesisAccount, chain_id_of
from dllm_protocol.json_shape import to_base64
from dllm_protocol.params import Params
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import transaction_hash
from full_node.consensus.cometbft.files import EngineFolder, node_id, prepare_folder
from full_node.files import make_private_folder
from full_node.founding import Founding, found_chain, own_validator
from full_node.home import NodeHome, write_genesis
from full_node.keys import create_key, load_key
from full_node.settings import COMETBFT, NodeSettings, write_settings
from tests.full_node.processes import NODE, Sender

HOST = "127.0.0.1"
FUNDED_SENDERS = range(1, 10)
FUNDED_UDLLM = 1_000_000_000
DEADLINE_S = 120.0
"""For everything that is waited for: many processes share few cores."""
POLL_S = 0.1
CALL_S = 20.0
FIRST_PORT, LAST_PORT = 20_000, 32_000
START_TRIES = 3
T = TypeVar("T")


def beating(params: Params) -> Params:
    """A block every second, for tests that would else wait a minute for the second one."""
    return replace(params, heartbeat_ms=1_000)


class RpcError(Exception):
    """A node answered with an error."""


def until(what: str, look: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Looks until there is something to see; fails with what was waited for."""
    end_s = time.monotonic() + deadline_s
    last: object = None
    while time.monotonic() < end_s:
        try:
            if found := look():
                return found
            last = found
        except (OSError, RpcError) as error:
            last = error
        time.sleep(POLL_S)
    raise AssertionError(f"{what} did not come within {deadline_s:.0f} s; last seen: {last!r}")


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, outside the range that the system hands out by itself."""
    span = LAST_PORT - FIRST_PORT
    first = (os.getpid() * 131 + time.monotonic_ns() // 1_000_000) % span
    found: list[int] = []
    for step in range(span):
        port = FIRST_PORT + (first + step) % span
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def call(url: str, method: str, **params: Any) -> Any:
    """One JSON-RPC call; the result. Raises RpcError, and OSError when nobody answers."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=CALL_S) as response:
            answer = json.load(response)
    except HTTPError as error:  # CometBFT says 500 beside a JSON answer
        with error:
            answer = json.load(error)
    if "error" in answer:
        raise RpcError(f"{method}: {answer['error']}")
    return answer["result"]


@dataclass
class Node:
    """One node's home, and its process while it runs."""

    name: str
    home: Path
    rpc_port: int
    p2p_port: int
    options: tuple[str, ...] = ()
    program: Sequence[str] = tuple(NODE)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Its JSON-RPC over HTTP."""
        return f"http://{HOST}:{self.rpc_port}"

    @property
    def websocket(self) -> str:
        """Its JSON-RPC over websocket."""
        return f"ws://{HOST}:{self.rpc_port}/websocket"

    @property
    def peer_address(self) -> str:
        """Where its peers reach it."""
        return f"{node_id(EngineFolder(NodeHome(self.home).cometbft))}@{HOST}:{self.p2p_port}"

    @property
    def signer(self) -> SeedSigner:
        """Its validator key."""
        return load_key(NodeHome(self.home).key)

    def rpc(self, method: str, **params: Any) -> Any:
        """One call; the result."""
        return call(self.url, method, **params)

    @property
    def height(self) -> int:
        """Its newest block."""
        return int(self.rpc("status")["sync_info"]["latest_block_height"])

    def app_hash(self, height: int) -> str:
        """Root of the state after a block, as the header above says."""
        header: str = self.rpc("commit", height=str(height + 1))["signed_header"]["header"]["app_hash"]
        return header

    def begin(self) -> None:
        """Starts the process without waiting."""
        command = [*self.program, "start", "--home", str(self.home), "--moniker", self.name, "--lifeline"]
        command += ["--rpc-listen", f"{HOST}:{self.rpc_port}", "--p2p-listen", f"{HOST}:{self.p2p_port}"]
        self.process = subprocess.Popen(
            [*command, *self.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Waits until its RPC listens."""
        assert self.process is not None
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            assert self.process.stderr is not None
            said = self.process.stderr.read()
            self.close()
            raise AssertionError(f"{self.name} did not start: {said}")

    def restart(self, *options: str) -> None:
        """Starts it again after `stop` or `kill`; returns when it listens."""
        assert self.process is None, f"{self.name} runs"
        if options:
            self.options = options
        self.begin()
        self.ready()

    def stop(self) -> int:
        """Ends it in order; returns its exit status."""
        assert self.process is not None, f"{self.name} does not run"
        self.process.send_signal(signal.SIGTERM)
        return self.close()

    def kill(self) -> None:
        """kill -9 of the node; Linux then kills its CometBFT, too."""
        self.kill_application()
        self.close()

    def kill_application(self) -> None:
        """kill -9 of the process that has the state."""
        assert self.process is not None, f"{self.name} does not run"
        self.process.kill()

    def kill_engine(self) -> None:
        """kill -9 of CometBFT alone; the node notices and ends."""
        for pid in self.engine_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def engine_pids(self) -> list[int]:
        """Its CometBFT's process."""
        assert self.process is not None, f"{self.name} does not run"
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def close(self) -> int:
        """Waits for its end."""
        assert self.process is not None
        status = self.process.wait(DEADLINE_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process = None
        return status

    def end(self) -> None:
        """Makes sure that it does not run."""
        if self.process is not None:
            self.process.kill()
            self.close()


@dataclass
class Network:
    """A chain and the nodes that run it."""

    folder: Path
    genesis: Genesis
    nodes: list[Node] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        folder: Path,
        validators: int = 4,
        *,
        params: Callable[[Params], Params] = lambda params: params,
        accounts: Sequence[GenesisAccount] = (),
        options: Sequence[str] = (),
    ) -> Iterator[Network]:
        """A network of validators with equal stakes, all started; ends with the block.

        Args:
            params: changes the chain's parameters, e.g. ``lambda p: replace(p, heartbeat_ms=2000)``.
            accounts: more accounts than the funded senders.
            options: more words for every `dllm-node start`.
        """
        network = None
        try:
            for left in reversed(range(START_TRIES)):
                network = cls._found(folder / f"network-{left}", validators, params, accounts, tuple(options))
                try:
                    network._start_all()
                except AssertionError as error:
                    network.end()
                    if not left or "address already in use" not in str(error).lower():
                        raise
                else:
                    break
            assert network is not None
            yield network
        finally:
            if network is not None:
                network.end()

    @classmethod
    def _found(
        cls,
        folder: Path,
        validators: int,
        params: Callable[[Params], Params],
        accounts: Sequence[GenesisAccount],
        options: tuple[str, ...],
    ) -> Network:
        ports = free_ports(2 * validators)
        nodes = [
            Node(f"node-{n}", folder / f"node-{n}", ports[2 * n], ports[2 * n + 1], options)
            for n in range(validators)
        ]
        stakes = [own_validator(_make_keys(node.home), "", "local") for node in nodes]
        given = [(one.address, one.balance_udllm) for one in accounts]
        given += [(Sender.numbered(n).address, FUNDED_UDLLM) for n in FUNDED_SENDERS]
        genesis = found_chain(Founding("dllm-test", "local", stakes, given, seats=max(4, validators)))
        genesis = replace(genesis, params=params(genesis.params))
        network = cls(folder, genesis, nodes)
        for node in nodes:
            network._settle(node, [one for one in nodes if one is not node])
        return network

    @property
    def chain_id(self) -> str:
        """The chain."""
        return chain_id_of(self.genesis)

    def sender(self, number: int) -> Sender:
        """A funded account that sends transfers."""
        found = Sender.numbered(number)
        found.chain_id = self.chain_id
        return found

    def add_node(self, name: str, *options: str, settings: NodeSettings | None = None) -> Node:
        """A full node that validates nothing, not started yet; its peers are all others."""
        rpc_port, p2p_port = free_ports(2)
        node = Node(name, self.folder / name, rpc_port, p2p_port, options)
        _make_keys(node.home)
        self._settle(node, self.nodes, settings)
        self.nodes.append(node)
        return node

    def wait_for_height(self, height: int, nodes: Sequence[Node] | None = None) -> None:
        """Until all nodes (those that run, when none are named) have a block of this height."""
        for node in self.running() if nodes is None else nodes:
            until(f"height {height} of {node.name}", partial(_has_height, node, height))

    def running(self) -> list[Node]:
        """The nodes whose process was started and not ended."""
        return [node for node in self.nodes if node.process is not None]

    def send(self, raw: bytes, node: Node | None = None) -> bytes:
        """Hands a transaction to a node's mempool; returns its hash."""
        answer = (node or self.running()[0]).rpc("broadcast_tx_sync", tx=to_base64(raw))
        assert answer["code"] == 0, answer
        return transaction_hash(raw)

    def wait_for_tx(self, name: bytes, node: Node | None = None) -> Any:
        """Until a transaction stands in a block that the node has; returns `tx`."""
        where = node or self.running()[0]
        return until(f"transaction {name.hex()}", lambda: where.rpc("tx", hash=to_base64(name)))

    def transfer(self, sender: Sender, recipient: bytes, amount_udllm: int, node: Node | None = None) -> Any:
        """A transfer that stands in a block."""
        found = self.wait_for_tx(self.send(sender.transfer(recipient, amount_udllm), node), node)
        assert found["tx_result"]["code"] == 0, found
        return found

    def require_agreement(self, height: int, nodes: Sequence[Node] | None = None) -> str:
        """That all nodes have one block and one root at a height; returns the root."""
        asked = self.running() if nodes is None else nodes
        self.wait_for_height(height + 1, asked)
        seen = {
            (node.rpc("commit", height=str(height))["signed_header"]["commit"]["block_id"]["hash"],
             node.app_hash(height))
            for node in asked
        }  # fmt: skip
        assert len(seen) == 1, f"height {height}: {seen}"
        return seen.pop()[1]

    def end(self) -> None:
        """Ends every process."""
        for node in self.nodes:
            node.end()

    def _start_all(self) -> None:
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.ready()

    def _settle(self, node: Node, peers: Sequence[Node], settings: NodeSettings | None = None) -> None:
        place = NodeHome(node.home)
        write_genesis(place, self.genesis)
        peer_addresses = tuple(peer.peer_address for peer in peers)
        write_settings(place, replace(settings or NodeSettings(), engine=COMETBFT, peers=peer_addresses))


def _has_height(node: Node, height: int) -> bool:
    return node.height >= height


def _make_keys(home: Path) -> bytes:
    make_private_folder(home)
    place = NodeHome(home)
    prepare_folder(EngineFolder(place.cometbft))
    return create_key(place.key).public_key
