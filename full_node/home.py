"""A node's folder: what lies where, and who holds it.

consensus_key.json   the validator's key (0600)
genesis.json         chain id and the canonical genesis record
node.json            which engine runs the node, and which peers it has
data.db              blocks and state (SQLite); with CometBFT, which keeps the blocks, state alone
sign_state           what the solo engine signed last
cometbft/            CometBFT's own folder, see `full_node.consensus.cometbft.files`
snapshots/           snapshots of the state for others
rpc.json             where the running node listens; gone when it stopped in order
node.lock            held while a node runs
logs/node.log        rotating, one JSON object a line
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_protocol.errors import MalformedBytes, NetworkUnreachable, UsageRefused
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.json_shape import base64_bytes, shape
from full_node.files import write_private

GENESIS_BYTES_MAX = 64 << 20


class HomeRefused(UsageRefused):
    """The folder cannot be used as it is."""

    code = "E_NODE_HOME"


class NodeNotRunning(NetworkUnreachable):
    """No node runs from this folder."""

    code = "E_NODE_DOWN"


@dataclass(frozen=True, slots=True)
class NodeHome:
    """Paths inside a node's folder."""

    folder: Path

    @property
    def key(self) -> Path:
        """The validator's key."""
        return self.folder / "consensus_key.json"

    @property
    def genesis(self) -> Path:
        """What the chain begins from."""
        return self.folder / "genesis.json"

    @property
    def settings(self) -> Path:
        """Which engine runs the node, and which peers it has."""
        return self.folder / "node.json"

    @property
    def cometbft(self) -> Path:
        """CometBFT's own folder."""
        return self.folder / "cometbft"

    @property
    def snapshots(self) -> Path:
        """Snapshots of the state for others."""
        return self.folder / "snapshots"

    @property
    def database(self) -> Path:
        """Blocks and state."""
        return self.folder / "data.db"

    @property
    def sign_state(self) -> Path:
        """What was signed last."""
        return self.folder / "sign_state"

    @property
    def rpc(self) -> Path:
        """Where the running node listens."""
        return self.folder / "rpc.json"

    @property
    def lock(self) -> Path:
        """Held while a node runs."""
        return self.folder / "node.lock"

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.folder / "logs"


def write_genesis(home: NodeHome, genesis: Genesis) -> None:
    """Writes genesis.json."""
    document = {
        "chain_id": chain_id_of(genesis),
        "genesis": base64.b64encode(genesis.encode()).decode(),
    }
    write_private(home.genesis, json.dumps(document, indent=2).encode() + b"\n")


def read_genesis(path: Path) -> Genesis:
    """Reads a genesis file: our JSON, or the record's canonical bytes alone. Raises HomeRefused."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HomeRefused(
            f"{path} cannot be read: {error.strerror}", hint="run `dllm-node init` first"
        ) from error
    try:
        if not data.startswith(b"{"):
            return Genesis.decode(data)
        document = shape("genesis file", json.loads(data), ("chain_id", "genesis"))
        genesis = Genesis.decode(base64_bytes("genesis", document["genesis"], GENESIS_BYTES_MAX))
    except (ValueError, RecursionError, MalformedBytes) as error:
        raise HomeRefused(f"{path} is not a genesis file: {error}") from error
    if document["chain_id"] != chain_id_of(genesis):
        raise HomeRefused(
            f"{path} says chain {document['chain_id']!r}, its record is {chain_id_of(genesis)!r}"
        )
    return genesis


def hold(home: NodeHome) -> int:
    """Takes the folder for this process; released when the process ends, however it ends. Raises HomeRefused.

    Returns:
        The open file whose lock is held.
    """
    descriptor = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise HomeRefused(f"another node runs from {home.folder} already") from error
    return descriptor


def is_held(home: NodeHome) -> bool:
    """Whether a node runs from this folder."""
    if not home.lock.exists():
        return False
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def running_node(home: NodeHome) -> dict[str, Any]:
    """What rpc.json of a running node says: address, pid, chain_id. Raises NodeNotRunning."""
    if is_held(home):
        try:
            found = json.loads(home.rpc.read_bytes())
        except FileNotFoundError:
            raise NodeNotRunning(
                f"the node in {home.folder} does not listen yet", hint="try again in a moment"
            ) from None
        if isinstance(found, dict):
            return found
    raise NodeNotRunning(
        f"no node runs from {home.folder}", hint=f"start it with `dllm-node start --home {home.folder}`"
    )
