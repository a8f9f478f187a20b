"""A node of either engine refuses to start a chain on which cheating could go unpunished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from full_node.consensus.cometbft.files import EngineFolder, prepare_folder
from full_node.files import make_private_folder
from full_node.founding import Founding, found_chain, own_validator
from full_node.home import NodeHome, write_genesis
from full_node.keys import create_key
from full_node.settings import COMETBFT, SOLO, NodeSettings, write_settings
from tests.full_node.processes import dllm_node


def make_home(folder: Path, engine: str, **times_ms: Any) -> NodeHome:
    """A node's folder with a genesis that `dllm-node init` would not make."""
    make_private_folder(folder)
    home = NodeHome(folder)
    prepare_folder(EngineFolder(home.cometbft))
    key = create_key(home.key).public_key
    genesis = found_chain(Founding("times", "local", [own_validator(key, "", "local")], [], seats=1))
    write_genesis(home, replace(genesis, params=replace(genesis.params, **times_ms)))
    write_settings(home, replace(NodeSettings(), engine=engine))
    return home


@pytest.mark.parametrize("engine", [SOLO, COMETBFT])
@pytest.mark.parametrize(
    "times_ms",
    [{"unbonding_ms": 1}, {"evidence_age_ms": 1}, {"trusting_period_ms": 1 << 42}],
    ids=lambda one: next(iter(one)),
)
def test_times_in_disorder_are_refused_at_start(
    tmp_path: Path, engine: str, times_ms: dict[str, int], request: pytest.FixtureRequest
) -> None:
    if engine == COMETBFT:
        request.getfixturevalue("cometbft")
    home = make_home(tmp_path / "node", engine, **times_ms)
    done = dllm_node("start", "--home", home.folder)
    assert done.returncode == 2, done
    assert f"{next(iter(times_ms.values()))} ms" in done.stderr
    assert "each must exceed the next" in done.stderr
