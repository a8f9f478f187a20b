"""What a network's description may say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.errors import UsageRefused
from full_node.publishing import check_faucet
from tests.dllm_protocol.test_bundle import make_bundle


def test_only_a_test_network_names_a_faucet() -> None:
    check_faucet(make_bundle("tdllm").genesis, "http://127.0.0.1:26680")
    check_faucet(make_bundle("dllm").genesis, "")
    with pytest.raises(UsageRefused, match="only test networks"):
        check_faucet(make_bundle("dllm").genesis, "http://127.0.0.1:26680")


def test_a_faucet_has_a_web_address() -> None:
    genesis = replace(make_bundle("tdllm").genesis, name="other")
    with pytest.raises(UsageRefused, match="web address"):
        check_faucet(genesis, "ws://127.0.0.1:26680/websocket")
