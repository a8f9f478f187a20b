"""What a devnet is made of, and which folders can hold one."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.devnet.errors import DevnetRefused, NoDevnet
from dllm_chat.devnet.parts import devnet_worker_command, relay_command
from dllm_chat.devnet.plan import (
    COMETBFT,
    SOLO,
    Folder,
    check_folder,
    make_plan,
    prepare_folder,
    read_plan,
    remove_parts,
    taken_ports,
    write_plan,
)
from dllm_chat.devnet.supervisor import Order
from dllm_chat.paths import write_private


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "devnet")


def test_a_plan_is_read_as_it_was_written(folder: Folder) -> None:
    plan = make_plan(COMETBFT, 4, 2, "model.gguf")
    nodes = tuple(replace(node, peer_id=f"{n:040x}") for n, node in enumerate(plan.nodes))
    plan = replace(plan, nodes=nodes)
    prepare_folder(folder)
    write_plan(folder, plan)
    assert read_plan(folder) == plan
    assert plan.nodes[2].peer_address == f"{2:040x}@127.0.0.1:{plan.nodes[2].p2p_port}"
    assert [path.name for path in folder.root.iterdir()] == ["devnet.json"]


def test_a_plan_with_a_relay_is_read_as_it_was_written_and_an_older_one_has_none(folder: Folder) -> None:
    plan = make_plan(SOLO, 1, 1, "", relay=True)
    write_plan(folder, plan)
    assert read_plan(folder) == plan
    assert plan.relay_url == f"ws://127.0.0.1:{plan.relay_port}" and plan.size.endswith("a relay")
    older = json.loads(folder.plan.read_bytes())
    del older["relay_port"]
    write_private(folder.plan, json.dumps(older).encode())
    assert read_plan(folder) == replace(plan, relay_port=0)
    assert replace(plan, relay_port=0).relay_url == ""


def test_workers_of_a_devnet_with_a_relay_are_told_of_it_and_nothing_else_to_listen_on(
    folder: Folder,
) -> None:
    for relay in (False, True):
        plan = make_plan(SOLO, 1, 1, "", relay=relay)
        command = devnet_worker_command(folder, plan, "worker-1")
        assert (["--relay", plan.relay_url] == command[-3:-1]) is relay
        assert "--listen" not in command and "--announce" not in command
    assert f"127.0.0.1:{plan.relay_port}" in relay_command(folder, plan)


def test_a_plan_with_slices_is_read_as_it_was_written(folder: Folder) -> None:
    plan = replace(make_plan(SOLO, 1, 4, "model.gguf", 3), cuts=(0, 4, 8, 12))
    assert [plan.layers_of(slot) for slot in plan.slots] == [(0, 4), (4, 8), (8, 12)] * 2
    assert plan.size == "1 node, 4 workers, 3 slices of the model, a faucet"
    prepare_folder(folder)
    write_plan(folder, plan)
    assert read_plan(folder) == plan


def test_a_plan_from_before_there_were_slices_is_one_of_whole_models(folder: Folder) -> None:
    plan = make_plan(SOLO, 1, 2, "model.gguf")
    prepare_folder(folder)
    write_plan(folder, plan)
    document = json.loads(folder.plan.read_bytes())
    for name in ("split", "slots", "cuts"):
        del document[name]
    write_private(folder.plan, json.dumps(document | {"version": 1}).encode())
    assert read_plan(folder) == plan
    write_private(folder.plan, json.dumps(document).encode())
    with pytest.raises(DevnetRefused, match="split"):
        read_plan(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"cuts": []},
        {"cuts": [0, 4, 4, 12]},
        {"cuts": [0, 8, 4, 12]},
        {"slots": [{"worker": "worker-9", "slice_": 0, "copy": 0}]},
        {"slots": [{"worker": "worker-1", "slice_": 3, "copy": 0}]},
        {"slots": [5]},
    ],
)
def test_slices_that_make_no_sense_are_a_damaged_plan(folder: Folder, change: dict[str, object]) -> None:
    prepare_folder(folder)
    write_plan(folder, replace(make_plan(SOLO, 1, 4, "", 3), cuts=(0, 4, 8, 12)))
    document = json.loads(folder.plan.read_bytes()) | change
    write_private(folder.plan, json.dumps(document).encode())
    with pytest.raises(DevnetRefused, match="cannot be read"):
        read_plan(folder)


@pytest.mark.parametrize(("workers", "split"), [(2, -1), (2, 17), (0, 2)])
def test_splits_that_cannot_be_are_refused(workers: int, split: int) -> None:
    with pytest.raises(DevnetRefused, match="--split"):
        make_plan(SOLO, 1, workers, "", split)


def test_every_part_has_a_port_of_its_own_that_the_system_hands_to_nobody_else() -> None:
    plan = make_plan(COMETBFT, 16, 0, "")
    ports = [port for node in plan.nodes for port in (node.rpc_port, node.p2p_port)] + [plan.faucet_port]
    assert len(set(ports)) == 33
    assert all(20_000 <= port < 32_000 for port in ports)
    assert {node.p2p_port for node in make_plan(SOLO, 1, 0, "").nodes} == {0}


def test_a_port_is_taken_while_somebody_listens() -> None:
    plan = make_plan(SOLO, 1, 0, "")
    assert taken_ports(plan) == []
    with socket.create_server(("127.0.0.1", plan.faucet_port)):
        assert taken_ports(plan) == [plan.faucet_port]
    assert taken_ports(plan) == []


@pytest.mark.parametrize(
    ("engine", "validators", "workers"),
    [("other", 1, 1), (SOLO, 2, 1), (COMETBFT, 0, 1), (COMETBFT, 17, 1), (SOLO, 1, -1), (SOLO, 1, 17)],
)
def test_what_cannot_be_is_refused(engine: str, validators: int, workers: int) -> None:
    with pytest.raises(DevnetRefused):
        make_plan(engine, validators, workers, "")


def test_a_folder_without_a_plan_has_no_devnet(folder: Folder) -> None:
    with pytest.raises(NoDevnet):
        read_plan(folder)
    check_folder(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "other"}', '{"format": "dllm-devnet", "version": 3}', '"text"']
)
def test_a_damaged_plan_says_how_to_go_on(folder: Folder, text: str) -> None:
    write_private(folder.plan, text.encode())
    with pytest.raises(DevnetRefused) as caught:
        read_plan(folder)
    assert "--wipe" in caught.value.hint


def test_what_a_killed_founding_left_is_swept_and_a_home_is_kept(folder: Folder) -> None:
    prepare_folder(folder)
    write_private(folder.node("node-1") / "consensus_key.json", b"half")
    write_private(folder.genesis, b"half")
    write_private(folder.root / "data" / "wallets" / "mine", b"kept")
    prepare_folder(folder)
    assert not folder.genesis.exists()
    assert not folder.node("node-1").exists()
    assert (folder.root / "data" / "wallets" / "mine").read_bytes() == b"kept"


def test_nobody_elses_folder_is_touched(folder: Folder) -> None:
    write_private(folder.root / "nodes" / "of-another-program", b"theirs")
    with pytest.raises(DevnetRefused, match="nodes"):
        prepare_folder(folder)
    assert (folder.root / "nodes" / "of-another-program").exists()


def test_wiping_leaves_the_home_that_the_folder_is_as_well(folder: Folder) -> None:
    prepare_folder(folder)
    write_plan(folder, make_plan(SOLO, 1, 1, ""))
    write_private(folder.worker("worker-1") / "keys.json", b"")
    write_private(folder.root / "config.toml", b"")
    remove_parts(folder)
    assert [path.name for path in folder.root.iterdir()] == ["config.toml"]


def test_an_order_survives_a_command_line() -> None:
    for order in (Order(), Order(make_plan(COMETBFT, 2, 1, "a b.gguf", 2), (b"\1" * 20, b"\2" * 20))):
        assert Order.from_text(order.to_text()) == order
