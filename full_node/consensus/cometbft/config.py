"""CometBFT's config.toml, written anew at every start from what this node was told; what is not named here keeps
CometBFT's default.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address

from full_node.consensus.mempool import MempoolLimits

SOCKET_NAME = "abci.sock"
_MEMPOOL = MempoolLimits()


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StateSyncPlan:
    """How a new node begins from another's snapshot instead of block 1.

    Attributes:
        servers: http://host:port of RPCs that the light client asks; at least two.
        trust_height: height of the header that is trusted without proof.
        trust_hash: its hash.
    """

    servers: tuple[str, ...]
    trust_height: int
    trust_hash: bytes


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What a node decides about its CometBFT.

    Attributes:
        moniker: the node's name among its peers.
        rpc: where the JSON-RPC listens.
        p2p: where peers reach it.
        external: host:port that peers are told instead of `p2p`; may be empty.
        seeds, peers: id@host:port of nodes to ask for addresses, and to stay connected with.
        heartbeat_ms: an idle chain makes a block this often; 0 = never.
        trusting_period_ms: how long state sync trusts its header.
        state_sync: where to begin; None = at block 1.
        prometheus: host:port for metrics; empty = none.
        log_level: CometBFT's own.
    """

    moniker: str
    rpc: Listen
    p2p: Listen
    external: str = ""
    seeds: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    heartbeat_ms: int = 0
    trusting_period_ms: int = 0
    state_sync: StateSyncPlan | None = None
    prometheus: str = ""
    log_level: str = "info"


Value = str | int | bool


def config_toml(config: EngineConfig) -> str:
    """The file's text."""
    sections: dict[str, dict[str, Value]] = {
        "": _base(config),
        "rpc": _rpc(config),
        "p2p": _p2p(config),
        "mempool": _mempool(),
        "statesync": _state_sync(config),
        "consensus": _consensus(config),
        "instrumentation": {
            "prometheus": bool(config.prometheus),
            "prometheus_listen_addr": config.prometheus or "127.0.0.1:0",
        },
    }
    lines = ["# Written by dllm-node at every start; changes made here are lost."]
    for name, values in sections.items():
        if name:
            lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _base(config: EngineConfig) -> dict[str, Value]:
    return {
        # Relative to the folder that CometBFT is started in: a socket's whole path may be too long for the system.
        "proxy_app": f"unix://{SOCKET_NAME}",
        "abci": "socket",
        "moniker": config.moniker,
        "log_level": config.log_level,
        "log_format": "json",
        "genesis_file": "config/genesis.json",
        "node_key_file": "config/node_key.json",
        "priv_validator_key_file": "../consensus_key.json",
        "priv_validator_state_file": "data/priv_validator_state.json",
    }


def _rpc(config: EngineConfig) -> dict[str, Value]:
    return {
        "laddr": f"tcp://{config.rpc}",
        "timeout_broadcast_tx_commit": "30s",
        # A wallet, a worker and a light node on one machine share few connections, with some subscriptions each.
        "max_subscriptions_per_client": 20,
    }


def _p2p(config: EngineConfig) -> dict[str, Value]:
    return {
        "laddr": f"tcp://{config.p2p}",
        "external_address": config.external,
        "seeds": ",".join(config.seeds),
        "persistent_peers": ",".join(config.peers),
        # Addresses that are not routable, and several nodes at one, are right on loopback and nowhere else.
        "addr_book_strict": not config.p2p.is_loopback,
        "allow_duplicate_ip": config.p2p.is_loopback,
        "persistent_peers_max_dial_period": "5s",
        "flush_throttle_timeout": "10ms",
        "send_rate": 20 << 20,
        "recv_rate": 20 << 20,
    }


def _mempool() -> dict[str, Value]:
    return {
        "size": _MEMPOOL.count,
        "max_txs_bytes": _MEMPOOL.total_bytes,
        "cache_size": _MEMPOOL.seen_count,
        "max_tx_bytes": _MEMPOOL.tx_bytes,
    }


def _state_sync(config: EngineConfig) -> dict[str, Value]:
    plan = config.state_sync
    if plan is None:
        return {"enable": False}
    return {
        "enable": True,
        "rpc_servers": ",".join(plan.servers),
        "trust_height": plan.trust_height,
        "trust_hash": plan.trust_hash.hex().upper(),
        "trust_period": _duration(config.trusting_period_ms),
        "discovery_time": "5s",
        "chunk_request_timeout": "10s",
    }


def _consensus(config: EngineConfig) -> dict[str, Value]:
    return {
        # A block when there is a transaction, a proof block after a change, a heartbeat, and no other.
        "create_empty_blocks": False,
        "create_empty_blocks_interval": _duration(config.heartbeat_ms),
        "timeout_propose": "2s",
        "timeout_propose_delta": "500ms",
        "timeout_prevote": "500ms",
        "timeout_prevote_delta": "500ms",
        "timeout_precommit": "500ms",
        "timeout_precommit_delta": "500ms",
        # The pause after a block in which late votes still come in: short, for people wait for answers.
        "timeout_commit": "200ms",
        "peer_gossip_sleep_duration": "25ms",
    }


def _duration(span_ms: int) -> str:
    return f"{span_ms}ms"


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's strings are TOML's basic strings.
    return json.dumps(value)
