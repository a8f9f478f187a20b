"""On CometBFT a node's numbers are followed by the engine's own."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.documented_metrics import documented
from tests.full_node.cometbft.network import CALL_S, Network, beating, until


def test_ours_and_cometbfts_stand_at_one_address(tmp_path: Path) -> None:
    options = ("--metrics-listen", "127.0.0.1:0")
    with Network.start(tmp_path, validators=1, params=beating, options=options) as network:
        network.wait_for_height(2)
        address = json.loads((network.nodes[0].home / "rpc.json").read_bytes())["metrics_address"]

        def both() -> str:
            with urlopen(f"http://{address}/metrics", timeout=CALL_S) as answer:
                text: str = answer.read().decode()
            return text if "dllm_node_cometbft_metrics_up 1" in text else ""

        read = {one.name: one for one in text_string_to_metric_families(until("CometBFT's metrics", both))}
    ours = {name for name in read if name.startswith("dllm_")}
    assert ours == {name.removesuffix("_total") for name in documented("node", without="solo")}
    assert read["dllm_node_height"].samples[0].value >= 2
    assert read["cometbft_consensus_height"].samples[0].value >= 2
