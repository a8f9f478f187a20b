"""A validator that comes back from a backup signs nothing that the lost one may have signed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from full_node.consensus.cometbft.files import EngineFolder
from full_node.home import NodeHome
from tests.full_node.cometbft.network import Network, Node, until
from tests.full_node.processes import Sender, dllm_node

RECIPIENT = Sender.numbered(77).address


def test_a_validator_restored_from_a_backup_catches_up_and_signs_only_above(
    tmp_path: Path, cometbft: Path
) -> None:
    with Network.start(tmp_path, validators=4) as network:
        payer = network.sender(1)
        *others, lost = network.nodes
        network.transfer(payer, RECIPIENT, 1)
        file = tmp_path / "running.backup"
        made = dllm_node("backup", "--home", lost.home, file, "--json")
        assert made.returncode == 0, made.stderr
        left_out = json.loads(made.stdout)["data"]["left_out"]
        assert {"consensus_key.json", "cometbft/config/node_key.json", "data.db"} <= set(left_out)

        network.transfer(payer, RECIPIENT, 2)
        lost.kill()
        key = (lost.home / "consensus_key.json").read_bytes()
        shutil.rmtree(lost.home)
        assert dllm_node("restore", "--home", lost.home, file).returncode == 0
        (lost.home / "consensus_key.json").write_bytes(key)
        (lost.home / "consensus_key.json").chmod(0o600)
        refused = dllm_node("start", "--home", lost.home)
        assert (refused.returncode, "was restored from a backup" in refused.stderr) == (2, True)

        floor = others[0].height + 1
        confirmed = dllm_node("confirm-restored", "--home", lost.home, "--above", str(floor))
        assert confirmed.returncode == 0, confirmed.stderr
        lost.restart()
        height = int(network.transfer(payer, RECIPIENT, 3)["height"])
        network.require_agreement(height)
        until("a block that the restored validator signed", lambda: _signed(network, lost, payer))
        sign_state = EngineFolder(NodeHome(lost.home).cometbft).sign_state
        assert int(json.loads(sign_state.read_text())["height"]) > floor

        # Stopped, everything comes along, and the copy goes on where the folder stood.
        assert lost.stop() == 0
        whole = tmp_path / "stopped.backup"
        made = dllm_node("backup", "--home", lost.home, whole, "--json")
        assert "data.db" in json.loads(made.stdout)["data"]["files"]
        shutil.rmtree(lost.home)
        assert "with blocks and state" in dllm_node("restore", "--home", lost.home, whole).stdout
        (lost.home / "consensus_key.json").write_bytes(key)
        (lost.home / "consensus_key.json").chmod(0o600)
        floor = others[0].height + 1
        assert dllm_node("confirm-restored", "--home", lost.home, "--above", str(floor)).returncode == 0
        lost.restart()
        network.require_agreement(int(network.transfer(payer, RECIPIENT, 4)["height"]))


def _signed(network: Network, node: Node, payer: Sender) -> bool:
    """Whether the newest decided commit has the node's signature; makes a block where it has not."""
    address = json.loads((node.home / "consensus_key.json").read_text())["address"]
    first = network.nodes[0]
    commit = first.rpc("commit", height=str(first.height - 1))["signed_header"]["commit"]
    if any(one["validator_address"] == address for one in commit["signatures"]):
        return True
    network.transfer(payer, RECIPIENT, 1)
    return False
