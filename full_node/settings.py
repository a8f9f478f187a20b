"""node.json in a node's folder: what was decided when the folder was made, so that `start` need not be told again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dllm_protocol.bundle import is_peer_address
from dllm_protocol.errors import MalformedBytes, UsageRefused
from dllm_protocol.json_shape import shape
from full_node.consensus.cometbft.config import StateSyncPlan
from full_node.files import write_private
from full_node.home import HomeRefused, NodeHome

SOLO, COMETBFT = "solo", "cometbft"
ENGINES = (SOLO, COMETBFT)
_VERSION = 1


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How a node runs unless `start` says otherwise.

    Attributes:
        engine: who orders transactions: ``solo`` or ``cometbft``.
        peers: id@host:port of nodes to stay connected with.
        seeds: id@host:port of nodes to ask for more addresses.
        state_sync: where a new node begins; None = at block 1.
    """

    engine: str = SOLO
    peers: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    state_sync: StateSyncPlan | None = None

    def with_(
        self, engine: str = "", peers: tuple[str, ...] = (), seeds: tuple[str, ...] = ()
    ) -> NodeSettings:
        """These settings with what is not empty in place of what they say. Raises UsageRefused."""
        if engine and engine not in ENGINES:
            raise UsageRefused(f"--engine is {engine!r}", hint=f"it is one of: {', '.join(ENGINES)}")
        for address in (*peers, *seeds):
            if not is_peer_address(address):
                raise UsageRefused(
                    f"{address!r} is not a peer's address", hint="40 hex digits of its id, then @host:port"
                )
        return replace(
            self, engine=engine or self.engine, peers=peers or self.peers, seeds=seeds or self.seeds
        )


def write_settings(home: NodeHome, settings: NodeSettings) -> None:
    """Writes node.json."""
    document: dict[str, Any] = {
        "version": _VERSION,
        "engine": settings.engine,
        "peers": settings.peers,
        "seeds": settings.seeds,
    }
    if (plan := settings.state_sync) is not None:
        document["state_sync"] = {
            "servers": plan.servers,
            "trust_height": plan.trust_height,
            "trust_hash": plan.trust_hash.hex().upper(),
        }
    write_private(home.settings, json.dumps(document, indent=2).encode() + b"\n")


def read_settings(home: NodeHome) -> NodeSettings:
    """Reads node.json; a folder without one is a solo node's. Raises HomeRefused."""
    try:
        data = home.settings.read_bytes()
    except FileNotFoundError:
        return NodeSettings()
    except OSError as error:
        raise HomeRefused(f"{home.settings} cannot be read: {error.strerror}") from error
    try:
        document = shape(
            "node settings", json.loads(data), ("version", "engine", "peers", "seeds"), ("state_sync",)
        )
        if document["version"] != _VERSION:
            raise HomeRefused(f"{home.settings} is of version {document['version']}, known is {_VERSION}")
        peers, seeds = _addresses(document["peers"]), _addresses(document["seeds"])
        settings = NodeSettings().with_(str(document["engine"]), peers, seeds)
        if "state_sync" in document:
            settings = replace(settings, state_sync=_state_sync(document["state_sync"]))
    except (ValueError, TypeError, RecursionError, MalformedBytes) as error:
        raise _damaged(home.settings, str(error)) from error
    except UsageRefused as error:
        raise _damaged(home.settings, error.message) from error
    return settings


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise MalformedBytes(f"a list of addresses is {type(value).__name__}")
    return tuple(str(one) for one in value)


def _state_sync(value: object) -> StateSyncPlan:
    document = shape("state_sync", value, ("servers", "trust_height", "trust_hash"))
    return StateSyncPlan(
        _addresses(document["servers"]),
        int(str(document["trust_height"])),
        bytes.fromhex(str(document["trust_hash"])),
    )


def _damaged(path: Path, why: str) -> HomeRefused:
    return HomeRefused(f"{path} cannot be read: {why}", hint="correct it, or make the folder anew")
