"""Actions on accounts."""

from __future__ import annotations

from dllm_protocol.encoding import ADDRESS, UDLLM, ByteString, Record, record, wire


@record
class Transfer(Record):
    """Move tokens from the sender to another account, which comes into being if it is new."""

    recipient: bytes = wire(1, ADDRESS)
    amount_udllm: int = wire(2, UDLLM)


@record
class GrantChatKey(Record):
    """Let a second key open, top up and close sessions for the sender, up to a cap.

    Replaces the earlier grant. An empty key revokes it.
    """

    public_key: bytes = wire(1, ByteString(32, 32, optional=True))
    cap_udllm: int = wire(2, UDLLM)
    """How much the key may spend on deposits and fees in total, counted down as it does."""
