"""Staking with one's own wallet, by the command line, on a network of four validators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dllm_protocol.address import decode_address, encode_address
from dllm_protocol.genesis import GenesisAccount
from dllm_protocol.validator_set import address_of
from tests.e2e.devnets import Home
from tests.full_node.cometbft.network import Network, Node
from tests.full_node.processes import Sender, dllm_node

PREFIX = "local"
FUNDS_UDLLM = 3_000_000_000


@dataclass
class Staking:
    """The network, a fifth node, and the person whose stake is to stand behind it."""

    network: Network
    node: Node
    person: Home
    address: str

    @property
    def validator(self) -> str:
        """Address of the fifth node's consensus key."""
        return address_of(self.node.signer.public_key).hex().upper()

    def pay_in(self, *words: str, code: int = 0) -> dict[str, object]:
        """A command that signs."""
        password = ("--yes", "--password-file", str(self.person.password_file))
        return self.person.dllm("validator", *words, *password, code=code)

    def key_proof(self, owner: str) -> str:
        """What the fifth node's operator is told to give to its owner."""
        done = dllm_node("key", "--home", self.node.home, "--owner", owner, "--json")
        assert done.returncode == 0, done
        return str(json.loads(done.stdout)["data"]["key_proof"])


@pytest.fixture(scope="module")
def staking(tmp_path_factory: pytest.TempPathFactory, cometbft: Path) -> Iterator[Staking]:
    person = Home.at(tmp_path_factory.mktemp("person") / "home")
    account = decode_address(person.make_wallet(), "dllm")
    with Network.start(
        tmp_path_factory.mktemp("network"),
        validators=4,
        params=lambda params: replace(params, max_validators=5),
        accounts=[GenesisAccount(account, FUNDS_UDLLM)],
    ) as network:
        fifth = network.add_node("fifth")
        fifth.restart()
        network.transfer(network.sender(1), Sender.numbered(77).address, 1)
        published = dllm_node("bundle", "--home", network.nodes[0].home, "--json")
        assert published.returncode == 0, published
        told = json.loads(published.stdout)["data"]
        witness = ("--witness", network.nodes[1].websocket)
        person.dllm("network", "join", told["file"], "--fingerprint", told["fingerprint"], *witness)
        yield Staking(network, fifth, person, encode_address(PREFIX, account))


def test_a_person_stakes_on_their_node_and_takes_the_stake_back(staking: Staking) -> None:
    person, pay_in = staking.person, staking.pay_in
    before = person.dllm("validator", "list")
    assert (before["seated"], before["seats"]) == (4, 5)
    assert person.dllm("validator", "show", staking.validator, code=6)["code"] == "E_NOT_FOUND"

    another = staking.key_proof(encode_address(PREFIX, b"s" * 20))
    refused = pay_in("stake", "1500", "--key-proof", another, code=5)
    assert refused["code"] == "E_TX_BAD_CONSENSUS_KEY"
    proof = staking.key_proof(staking.address)
    tried = pay_in("stake", "1500", "--key-proof", proof, "--dry-run")
    assert tried["dry_run"] is True
    staked = pay_in("stake", "1500", "--key-proof", proof)
    assert (staked["validator"], staked["amount_udllm"]) == (staking.validator, 1_500_000_000)
    pay_in("stake", "500", "--validator", staking.validator)
    shown = person.dllm("validator", "show", staking.validator)
    assert (shown["owner"], shown["stake_udllm"]) == (staking.address, 2_000_000_000)
    assert (shown["seated"], shown["power"], shown["jailed"]) == (True, 2_000, False)
    listed = person.dllm("validator", "list")["validators"]
    assert [one["power"] for one in listed] == [2_000, 1_000, 1_000, 1_000, 1_000]
    assert listed[0]["validator"] == staking.validator
    assert sum(one["share_ppm"] for one in listed) in range(999_990, 1_000_001)

    pay_in("unstake", staking.node.signer.public_key.hex(), "all")
    shown = person.dllm("validator", "show", staking.validator)
    assert (shown["stake_udllm"], shown["seated"]) == (0, False)
    (leaving,) = shown["unbonding"]
    assert leaving["amount_udllm"] == 2_000_000_000
    assert person.dllm("validator", "list")["seated"] == 4
    assert "nothing is due before" in str(pay_in("collect", staking.validator, code=2)["message"])
    spent = FUNDS_UDLLM - person.dllm("wallet", "balance")["spendable_udllm"] - 2_000_000_000
    assert 0 < spent < 1_000_000, "fees"


def test_what_the_chain_would_refuse_is_refused_with_words(staking: Staking) -> None:
    others = staking.network.nodes[0].signer.public_key.hex()
    refused = staking.pay_in("unstake", others, "1", code=5)
    assert refused["code"] == "E_TX_NOT_AUTHORISED"
    assert staking.pay_in("stake", "1", code=2)["code"] == "E_USAGE"
    assert staking.pay_in("stake", "1", "--key-proof", "00", code=2)["code"] == "E_KEY_PROOF"
    assert staking.pay_in("unstake", "somebody", "1", code=2)["code"] == "E_VALIDATOR_ADDRESS"
