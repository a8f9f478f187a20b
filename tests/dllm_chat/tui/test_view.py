"""The words for how the network stands."""

from __future__ import annotations

import pytest

from dllm_chat.tui.view import NetworkView, Phase, failure_of, trust_words
from dllm_chat.wallet.errors import NoSuchWallet
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut, VerificationFailed, WalletLocked


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NetworkUnreachable("nobody"), "✗ offline"),
        (TimedOut("too long"), "✗ offline"),
        (WalletLocked("no chat key"), "✗ locked"),
        (NoSuchWallet("no wallet"), "✗ not open"),
        (VerificationFailed("two headers"), "✗ not open"),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_offline_is_only_said_where_nobody_answered(error: DllmError, said: str) -> None:
    view = NetworkView(phase=Phase.FAILED, failure=failure_of(error))
    assert trust_words(view).plain == said


def test_what_strangers_wrote_in_an_error_is_one_clean_line() -> None:
    failure = failure_of(NetworkUnreachable("the node \x1b[31mdied\nhere", hint="look\u202e"))
    assert "\x1b" not in failure.message and "\n" not in failure.message
    assert "\u202e" not in failure.hint
