"""Hash chains over a leg's conversation [format].

The *transcript* covers what was asked: it starts from a secret of the handshake and the last voucher's transcript,
and absorbs each Decode, or each Expect at a stage behind the first. The *outputs* chain covers what was answered: it
starts from the transcript's start and absorbs each Output. Both ends compute both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dllm_protocol.hashing import Tag, domain, tagged_hash
from dllm_protocol.messages import Decode, Expect, Output, pack_ids

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

    def absorb_expect(self, message: Expect) -> None:
        """Rows were asked for that come from the previous stage."""
        self.head = tagged_hash(
            Tag.TRANSCRIPT,
            self.head,
            message.first_position.to_bytes(4, "little"),
            message.kind.to_bytes(1, "little"),
            message.rows.to_bytes(4, "little"),
            message.label,
        )

    def absorb_output(self, message: Output) -> None:
        """Logits were given."""
        self.outputs = tagged_hash(Tag.OUTPUTS, self.outputs, message.encode())


def held_digest(ids: Sequence[int]) -> bytes:
    """Digest of the token ids that a provider still holds rows of (32 bytes)."""
    return tagged_hash(Tag.HELD_ROWS, pack_ids(ids))


class RowLabel:
    """What a client calls the rows of its first tokens, at stages that never see a token id.

    A label is a digest under a secret of the client's, so that guessing the prompt confirms nothing.
    """

    def __init__(self, secret: bytes) -> None:
        """``secret``: 32 random bytes, kept as long as the token ids are."""
        self._secret = secret
        self._running = hashlib.sha256(domain(Tag.HELD_ROWS) + secret)
        self.rows = 0

    def extended(self, ids: Sequence[int]) -> bytes:
        """The label (32 bytes) behind ``ids`` more rows; they count from now on."""
        self._running.update(pack_ids(ids))
        self.rows += len(ids)
        return self._running.digest()

    def of(self, ids: Sequence[int]) -> bytes:
        """The label of exactly these rows."""
        return tagged_hash(Tag.HELD_ROWS, self._secret, pack_ids(ids))

    def restart(self, ids: Sequence[int]) -> None:
        """Go on behind exactly these rows."""
        self._running = hashlib.sha256(domain(Tag.HELD_ROWS) + self._secret + pack_ids(ids))
        self.rows = len(ids)
