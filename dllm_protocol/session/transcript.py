"""Hash chains over a leg's conversation [format].

The *transcript* covers what was asked: it starts from a secret of the handshake and the last voucher's transcript,
and absorbs each Decode. The *outputs* chain covers what was answered: it starts from the transcript's start and
absorbs each Output. Both ends compute both.
"""

from __future__ import annotations

from collections.abc import Sequence

from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.messages import Decode, Output, pack_ids

NO_TRANSCRIPT = bytes(32)


class Transcript:
    """Both chains of one connection."""

    __slots__ = ("head", "outputs")

    def __init__(self, secret: bytes, previous: bytes) -> None:
        self.head = tagged_hash(Tag.TRANSCRIPT, secret, previous)
        self.outputs = tagged_hash(Tag.OUTPUTS, self.head)

    def absorb_decode(self, message: Decode) -> None:
        """Rows were asked for."""
        self.head = tagged_hash(
            Tag.TRANSCRIPT,
            self.head,
            message.first_position.to_bytes(4, "little"),
            message.kind.to_bytes(1, "little"),
            message.ids,
        )

    def absorb_output(self, message: Output) -> None:
        """Logits were given."""
        self.outputs = tagged_hash(Tag.OUTPUTS, self.outputs, message.encode())


def held_digest(ids: Sequence[int]) -> bytes:
    """Digest of the token ids that a provider still holds rows of (32 bytes)."""
    return tagged_hash(Tag.HELD_ROWS, pack_ids(ids))
