"""node.json says how a node runs, and a damaged one is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_protocol.errors import UsageRefused
from full_node.consensus.cometbft.config import StateSyncPlan
from full_node.home import HomeRefused, NodeHome
from full_node.settings import COMETBFT, SOLO, NodeSettings, read_settings, write_settings

PEER = f"{'ab' * 20}@127.0.0.1:26656"


def test_a_folder_without_settings_is_a_solo_nodes(tmp_path: Path) -> None:
    assert read_settings(NodeHome(tmp_path)) == NodeSettings(SOLO)


@pytest.mark.parametrize("plan", [None, StateSyncPlan(("http://a:1", "http://b:1"), 5, b"h" * 32)])
def test_settings_come_back_as_written(tmp_path: Path, plan: StateSyncPlan | None) -> None:
    settings = NodeSettings(COMETBFT, (PEER,), (PEER,), plan)
    write_settings(NodeHome(tmp_path), settings)
    assert read_settings(NodeHome(tmp_path)) == settings


def test_what_is_named_replaces_what_was_settled() -> None:
    settled = NodeSettings(COMETBFT, (PEER,))
    assert settled.with_() == settled
    assert settled.with_(engine=SOLO).engine == SOLO
    with pytest.raises(UsageRefused, match="--engine is 'other'"):
        settled.with_(engine="other")
    with pytest.raises(UsageRefused, match="not a peer's address"):
        settled.with_(seeds=("127.0.0.1:1",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "engine": "solo", "peers": [], "seeds": []}',
        '{"version": 1, "engine": "x", "peers": [], "seeds": []}',
        '{"version": 1, "engine": "solo", "peers": "x", "seeds": []}',
        '{"version": 1, "engine": "solo", "peers": [], "seeds": [], "state_sync": {}}',
    ],
)
def test_damaged_settings_are_refused(tmp_path: Path, text: str) -> None:
    home = NodeHome(tmp_path)
    home.settings.write_text(text)
    with pytest.raises(HomeRefused, match=r"node\.json"):
        read_settings(home)
