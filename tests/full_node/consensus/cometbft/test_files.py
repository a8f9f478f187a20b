"""CometBFT's folder: what is written when, and what is never written again."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from dllm_protocol.genesis import chain_id_of
from full_node.consensus.cometbft.config import EngineConfig, Listen, StateSyncPlan, config_toml
from full_node.consensus.cometbft.files import (
    EngineFolder,
    forget_blocks,
    node_id,
    prepare_folder,
    write_files,
)
from full_node.home import HomeRefused
from tests.full_node.consensus.abci.recorded import genesis
from tests.full_node.doubles import make_genesis

CONFIG = EngineConfig('a "node"', Listen("127.0.0.1", 5), Listen("0.0.0.0", 6), heartbeat_ms=60_000)


@pytest.fixture
def folder(tmp_path: Path) -> EngineFolder:
    made = EngineFolder(tmp_path / "cometbft")
    prepare_folder(made)
    return made


def test_the_configuration_is_toml_with_what_the_node_was_told() -> None:
    found = tomllib.loads(config_toml(CONFIG))
    assert found["moniker"] == 'a "node"'
    assert found["proxy_app"] == "unix://abci.sock"
    assert found["rpc"]["laddr"] == "tcp://127.0.0.1:5"
    assert found["p2p"]["laddr"] == "tcp://0.0.0.0:6"
    assert (found["p2p"]["addr_book_strict"], found["p2p"]["allow_duplicate_ip"]) == (True, False)
    assert found["consensus"]["create_empty_blocks"] is False
    assert found["consensus"]["create_empty_blocks_interval"] == "60000ms"
    assert found["statesync"] == {"enable": False}
    assert found["instrumentation"]["prometheus"] is False


def test_on_loopback_unroutable_addresses_are_right() -> None:
    found = tomllib.loads(config_toml(EngineConfig("x", Listen("127.0.0.1", 5), Listen("::1", 6))))
    assert found["p2p"]["laddr"] == "tcp://[::1]:6"
    assert (found["p2p"]["addr_book_strict"], found["p2p"]["allow_duplicate_ip"]) == (False, True)


def test_state_sync_names_servers_and_the_trusted_header() -> None:
    plan = StateSyncPlan(("http://a:1", "http://b:2"), 7, b"\xab" * 32)
    config = EngineConfig(
        "x",
        Listen("h", 5),
        Listen("h", 6),
        trusting_period_ms=1000,
        state_sync=plan,
        prometheus="127.0.0.1:9",
    )
    found = tomllib.loads(config_toml(config))
    assert found["statesync"]["rpc_servers"] == "http://a:1,http://b:2"
    assert (found["statesync"]["trust_height"], found["statesync"]["trust_hash"]) == (7, "AB" * 32)
    assert found["statesync"]["trust_period"] == "1000ms"
    assert found["instrumentation"] == {"prometheus": True, "prometheus_listen_addr": "127.0.0.1:9"}


def test_the_folder_is_private_and_the_node_keeps_its_identity(folder: EngineFolder) -> None:
    name = node_id(folder)
    prepare_folder(folder)
    assert (node_id(folder), len(name)) == (name, 40)
    assert folder.node_key.stat().st_mode & 0o077 == 0
    assert folder.root.stat().st_mode & 0o777 == 0o700


def test_genesis_is_written_once_and_another_chains_is_refused(folder: EngineFolder) -> None:
    write_files(folder, genesis(), CONFIG)
    written = folder.genesis.read_bytes()
    document = json.loads(written)
    assert document["chain_id"] == chain_id_of(genesis())
    assert sum(int(one["power"]) for one in document["validators"]) == sum(
        one.power for one in genesis().validators
    )
    write_files(folder, genesis(), CONFIG)
    assert folder.genesis.read_bytes() == written
    with pytest.raises(HomeRefused, match="is of chain"):
        write_files(folder, make_genesis(b"k" * 32), CONFIG)


def test_what_was_signed_is_never_forgotten(folder: EngineFolder) -> None:
    write_files(folder, genesis(), CONFIG)
    assert json.loads(folder.sign_state.read_text()) == {"height": "0", "round": 0, "step": 0}
    folder.sign_state.write_text('{"height": "9", "round": 0, "step": 3}')
    (folder.data / "blockstore.db").mkdir()
    (folder.data / "blockstore.db" / "000001.log").write_bytes(b"x")
    (folder.data / "evidence").write_bytes(b"x")
    write_files(folder, genesis(), CONFIG)
    forget_blocks(folder)
    assert [one.name for one in folder.data.iterdir()] == [folder.sign_state.name]
    assert '"9"' in folder.sign_state.read_text()


def test_a_validator_that_lost_its_record_does_not_start(folder: EngineFolder) -> None:
    write_files(folder, genesis(), CONFIG)
    (folder.data / "blockstore.db").mkdir()
    folder.sign_state.unlink()
    with pytest.raises(HomeRefused, match="nobody knows what this validator has signed"):
        write_files(folder, genesis(), CONFIG)
