"""How a running node is doing, as its own RPC says, whichever engine it has."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

from dllm_protocol.errors import NetworkUnreachable
from full_node.home import NodeHome, running_node
from full_node.settings import COMETBFT, read_settings

TIMEOUT_S = 10.0
_NEEDS_TOKEN = 401


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a node is and how far.

    Attributes:
        address, pid, chain_id: as in rpc.json.
        height: newest block whose state the node has; None when its RPC asks for a token.
        app_hash: root of the state after that block, upper hex.
        catching_up: whether the network is known to be further.
        peers: how many it is connected with.
        validator: whether it signs at the newest height.
        peer_address: id@host:port under which peers reach it; empty without peers (the solo engine).
    """

    address: str
    pid: int
    chain_id: str
    height: int | None = None
    app_hash: str = ""
    catching_up: bool = False
    peers: int = 0
    validator: bool = False
    peer_address: str = ""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


async def standing_of(home: NodeHome) -> Standing:
    """Asks the node that runs from a folder. Raises NodeNotRunning, NetworkUnreachable."""
    found = running_node(home)
    address, pid, chain_id = str(found["address"]), int(found["pid"]), str(found["chain_id"])
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            status, info, net = [
                await _ask(http, address, method) for method in ("status", "abci_info", "net_info")
            ]
        if status is None or info is None or net is None:
            return Standing(address, pid, chain_id)
        response, node = info["response"], status["node_info"]
        app_hash = b64decode(response.get("last_block_app_hash") or "", validate=True)
        return Standing(
            address,
            pid,
            chain_id,
            height=int(response.get("last_block_height") or 0),
            app_hash=app_hash.hex().upper(),
            catching_up=bool(status["sync_info"]["catching_up"]),
            peers=int(net["n_peers"]),
            validator=int(status["validator_info"]["voting_power"]) > 0,
            peer_address=_peer_address(node) if read_settings(home).engine == COMETBFT else "",
        )
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        raise NetworkUnreachable(f"the node at {address} does not answer as a node: {error}") from error


async def _ask(http: aiohttp.ClientSession, address: str, method: str) -> dict[str, Any] | None:
    """A method's result; None when it asks for a token."""
    async with http.get(f"http://{address}/{method}") as answer:
        if answer.status == _NEEDS_TOKEN:
            return None
        document: dict[str, Any] = (await answer.json(content_type=None))["result"]
        return document


def _peer_address(node: dict[str, Any]) -> str:
    listen = str(node.get("listen_addr", "")).removeprefix("tcp://")
    name = str(node.get("id", ""))
    return f"{name}@{listen}" if name and listen else ""
