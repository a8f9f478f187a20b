"""CometBFT's folder inside a node's home.

cometbft/config/config.toml     written at every start
cometbft/config/genesis.json    from our genesis, written once
cometbft/config/node_key.json   the node's identity among its peers (0600)
cometbft/data/                  CometBFT's blocks, state, write-ahead log, and what was signed last
cometbft/abci.sock              where it reaches us while both run
cometbft/lock                   held by CometBFT as long as it lives

The validator's key is the home's consensus_key.json, whose form CometBFT shares.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.genesis_document import consensus_params_of, genesis_document
from dllm_protocol.validator_set import address_of
from full_node.consensus.cometbft.config import SOCKET_NAME, EngineConfig, config_toml
from full_node.files import make_private_folder, write_private
from full_node.home import HomeRefused
from full_node.keys import create_key, load_key

_NOTHING_SIGNED = b'{\n  "height": "0",\n  "round": 0,\n  "step": 0\n}\n'


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """Paths inside CometBFT's folder."""

    root: Path

    @property
    def config(self) -> Path:
        """config.toml."""
        return self.root / "config" / "config.toml"

    @property
    def genesis(self) -> Path:
        """genesis.json in CometBFT's form."""
        return self.root / "config" / "genesis.json"

    @property
    def node_key(self) -> Path:
        """The node's identity among its peers."""
        return self.root / "config" / "node_key.json"

    @property
    def data(self) -> Path:
        """CometBFT's databases."""
        return self.root / "data"

    @property
    def sign_state(self) -> Path:
        """What the validator signed last."""
        return self.data / "priv_validator_state.json"

    @property
    def socket(self) -> Path:
        """Where CometBFT reaches the application."""
        return self.root / SOCKET_NAME

    @property
    def lock(self) -> Path:
        """Held by CometBFT as long as it lives."""
        return self.root / "lock"


def prepare_folder(folder: EngineFolder) -> None:
    """Makes the folder with the node's key where they are missing."""
    for place in (folder.root, folder.config.parent, folder.data):
        make_private_folder(place)
    if not folder.node_key.exists():
        create_key(folder.node_key)


def node_id(folder: EngineFolder) -> str:
    """How peers call this node: the address of its key, 40 hex digits. Raises KeyFileRefused."""
    return address_of(load_key(folder.node_key).public_key).hex()


def write_files(folder: EngineFolder, genesis: Genesis, config: EngineConfig) -> None:
    """Writes what CometBFT reads at its start.

    Raises:
        HomeRefused: the folder is another chain's, or the record of what was signed is lost.
    """
    write_private(folder.config, config_toml(config).encode())
    if not folder.genesis.exists():
        document = genesis_document(genesis, consensus_params_of(genesis))
        write_private(folder.genesis, json.dumps(document, indent=2).encode() + b"\n")
    # CometBFT remembers the file's hash, so it is never written twice.
    elif (found := json.loads(folder.genesis.read_bytes()).get("chain_id")) != chain_id_of(genesis):
        raise HomeRefused(
            f"{folder.genesis} is of chain {found}, this node's genesis of {chain_id_of(genesis)}"
        )
    if folder.sign_state.exists():
        return
    if any(folder.data.iterdir()):
        raise HomeRefused(
            f"{folder.sign_state} is missing: nobody knows what this validator has signed",
            hint="restore it from the newest backup; a validator that signs a height twice is slashed",
        )
    write_private(folder.sign_state, _NOTHING_SIGNED)


def forget_blocks(folder: EngineFolder) -> None:
    """Removes CometBFT's databases, never the record of what was signed."""
    for place in folder.data.iterdir():
        if place.is_dir():
            shutil.rmtree(place)
        elif place != folder.sign_state:
            place.unlink()
