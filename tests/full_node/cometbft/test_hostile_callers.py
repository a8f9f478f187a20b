"""Whatever a stranger asks of CometBFT's RPC, the node goes on."""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.full_node.cometbft.network import CALL_S, Network
from tests.full_node.processes import Sender

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
    with Network.start(tmp_path, validators=1) as network:
        network.wait_for_height(2)
        for odd in ODD_CALLS:
            try:
                urlopen(f"{network.nodes[0].url}/{odd}", timeout=CALL_S).close()
            except HTTPError as refusal:
                refusal.close()
        assert network.transfer(network.sender(1), Sender.numbered(78).address, 1)["tx_result"]["code"] == 0
