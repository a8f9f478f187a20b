"""`dllm wallet …`: keys (`wallet_keys`) and money (`wallet_money`)."""

from __future__ import annotations

from dllm_chat.cli import wallet_keys, wallet_money
from dllm_chat.cli.command import group

app = group(
    """Your money.

    \b
      dllm wallet balance
      dllm wallet create main
      dllm wallet send dllm1… 1.5
      dllm wallet history

    On the embedded network a play wallet is used by itself.
    """
)
wallet_keys.register(app)
wallet_money.register(app)
