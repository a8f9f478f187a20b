"""Whatever a stranger asks of CometBFT's RPC, the node goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from dllm_protocol.actions import Stake
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.consensus_params import BLOCK_MAX_BYTES_DEFAULT, HashedParams
from dllm_protocol.genesis import GenesisAccount
from dllm_protocol.json_shape import to_base64
from dllm_protocol.refusals import NotAuthorised
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction
from tests.full_node.cometbft.network import CALL_S, Network, beating
from tests.full_node.processes import FEE_UDLLM, Sender

ODD_CALLS = (
    "abci_query?path=0xff00",  # CometBFT takes hex for a string, so this path is no UTF-8
    "abci_query?path=0xeda080",  # a lone surrogate
    'abci_query?path="/offers"&data=0xff',
    'abci_query?path="/store"&data=0x00&height=-9223372036854775808&prove=true',
    'abci_query?path="/store"&height=9223372036854775807',
    "abci_query",
    "check_tx?tx=0x00",
    "check_tx",
    "broadcast_tx_sync?tx=0x0a",
    "broadcast_tx_sync",
)


@pytest.mark.usefixtures("cometbft")
def test_no_question_ends_a_node(tmp_path: Path) -> None:
    with Network.start(tmp_path, validators=1, params=beating) as network:
        network.wait_for_height(2)
        for odd in ODD_CALLS:
            try:
                urlopen(f"{network.nodes[0].url}/{odd}", timeout=CALL_S).close()
            except HTTPError as refusal:
                refusal.close()
        assert network.transfer(network.sender(1), Sender.numbered(78).address, 1)["tx_result"]["code"] == 0


@pytest.mark.usefixtures("cometbft")
def test_what_is_only_asked_about_is_not_in_the_way_of_what_others_hand_in(tmp_path: Path) -> None:
    """Two owners want one consensus key; the stranger asks first by `check_tx`, and never sends.

    The chain began before genesis named a size of blocks, and goes on with the one that it began with.
    """
    stranger, honest = Sender.numbered(101), Sender.numbered(102)
    key = SeedSigner(b"wanted".ljust(32, b"."))
    with Network.start(
        tmp_path,
        validators=1,
        params=lambda params: replace(beating(params), max_validators=5, block_max_bytes=0),
        accounts=[GenesisAccount(one.address, 5_000_000_000) for one in (stranger, honest)],
    ) as network:
        network.wait_for_height(2)
        node = network.nodes[0]

        def staking(sender: Sender) -> bytes:
            stake = Stake(key.public_key, 1_500_000_000, prove_key(key, network.chain_id, sender.address))
            public_key = sender.signer.public_key
            body = make_body(network.chain_id, sender.address, public_key, 0, [stake], fee_udllm=FEE_UDLLM)
            return sign_transaction(sender.signer, body).encode()

        for _ in range(2):
            asked = node.rpc("check_tx", tx=to_base64(staking(stranger)))
            assert asked["code"] == 0, asked
        found = network.wait_for_tx(network.send(staking(honest)))
        assert found["tx_result"]["code"] == 0, found
        assert node.rpc("check_tx", tx=to_base64(staking(stranger)))["code"] == NotAuthorised.abci_code

        block = node.rpc("consensus_params")["consensus_params"]["block"]
        assert block["max_bytes"] == str(BLOCK_MAX_BYTES_DEFAULT)
        header = node.rpc("commit", height="1")["signed_header"]["header"]
        assert header["consensus_hash"] == HashedParams(BLOCK_MAX_BYTES_DEFAULT).hash().hex().upper()
