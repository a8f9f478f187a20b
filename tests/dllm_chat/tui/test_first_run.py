"""What the first screen offers to serve, and where it offers nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import OptionList

from dllm_chat import models_found
from dllm_chat.history.store import History
from dllm_chat.models_found import FoundModel
from dllm_chat.paths import Paths, find_paths
from dllm_chat.session.networks import join_network, play_wallet_folder
from dllm_chat.tui import main
from dllm_chat.tui.screens.first_run import FirstRunScreen
from dllm_chat.wallet.play_wallet import bind_play_wallet, create_play_wallet
from dllm_protocol.bundle import sign_bundle
from tests.dllm_chat.tui.doubles import ScriptedDoor, app_for, until
from tests.dllm_chat.tui.test_chat import is_open, words
from tests.dllm_protocol.test_bundle import SIGNER, make_bundle

FOUND = FoundModel(Path("/models/tiny.gguf"), "tiny", 2_000_000_000, "Ollama")


@pytest.fixture
def paths(tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(models_found, "find_models", lambda: [FOUND])
    return find_paths(tmp_home)


def join(paths: Paths) -> str:
    signed = sign_bundle(SIGNER, make_bundle())
    join_network(paths, signed.encode(), confirmed_signer=SIGNER.public_key)
    return signed.bundle.chain_id


def test_models_are_offered_where_a_worker_can_be_registered_from_here(paths: Paths) -> None:
    assert main._find_models(paths) == [FOUND], "the embedded network"
    chain_id = join(paths)
    assert main._find_models(paths) == [], "a chat key pays, and registers nothing"
    create_play_wallet(play_wallet_folder(paths, chain_id))
    bind_play_wallet(play_wallet_folder(paths, chain_id), chain_id)
    assert main._find_models(paths) == [FOUND], "a devnet of one's own"
    paths.config_file.write_text("wallet = 5")
    assert main._find_models(paths) == []


async def test_where_only_a_chat_key_pays_nothing_is_said_of_serving(history: History) -> None:
    app = app_for(ScriptedDoor(), history, welcomed=False, network="devnet-6a06dfe7")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, FirstRunScreen) and is_open(app))
        await until(pilot, lambda: words(app, "#offer") == "")
        assert app.screen.query_one(OptionList).option_count == 1
