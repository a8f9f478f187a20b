"""The chat key's cap is read in DLLM, and written for scripts in udllm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dllm_chat.cli import chat_keys
from dllm_protocol.actions import GrantChatKey
from tests.dllm_chat.cli.conftest import Ran
from tests.dllm_chat.cli.world_chain import opened_by
from tests.full_node.state_machine.world import World, signer


def test_what_a_chat_key_may_still_spend_is_shown_in_dllm(
    dllm: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    monkeypatch.setattr(chat_keys, "watching", opened_by(world, "alice"))
    assert dllm("wallet", "chat-key").out == "granted    no\nremaining  0 DLLM\n"
    world.do("alice", GrantChatKey(signer("chat").public_key, 5_000_000))
    assert dllm("wallet", "chat-key", "--json").data["remaining_udllm"] == 5_000_000
    assert dllm("wallet", "chat-key").out.splitlines()[-1] == "remaining   5 DLLM"
