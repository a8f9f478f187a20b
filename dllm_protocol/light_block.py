"""Signed headers and light blocks: what a light client is shown and judges (CometBFT v0.38, types/light.go)."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.block_errors import require_equal
from dllm_protocol.comet_wire import BYTES, message_field, read_fields
from dllm_protocol.commit import Commit
from dllm_protocol.header import Header
from dllm_protocol.validator_set import ValidatorSet


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header with the commit over it."""

    header: Header
    commit: Commit

    def encode(self) -> bytes:
        """Return SignedHeader{header=1, commit=2}, both always written."""
        return message_field(1, self.header.encode()) + message_field(2, self.commit.encode())

    @classmethod
    def decode(cls, data: bytes) -> SignedHeader:
        """Read what `encode` wrote; raises MalformedBlock."""
        fields = read_fields("SignedHeader", data, {1: BYTES, 2: BYTES})
        return cls(Header.decode(fields.required(1)), Commit.decode(fields.required(2)))

    def validate_basic(self, chain_id: str) -> None:
        """Check header and commit, and that they belong together and to this chain.

        Raises:
            InvalidBlock: naming both values.
        """
        self.header.validate_basic()
        self.commit.validate_basic()
        require_equal("header chain id", self.header.chain_id, chain_id)
        require_equal("commit height", self.commit.height, self.header.height)
        require_equal("commit block hash", self.commit.block_id.hash, self.header.hash())


@dataclass(frozen=True, slots=True)
class LightBlock:
    """What a light client judges: a signed header, its validators and those of the next height."""

    signed_header: SignedHeader
    validators: ValidatorSet
    next_validators: ValidatorSet

    @property
    def header(self) -> Header:
        """The header inside."""
        return self.signed_header.header

    @property
    def height(self) -> int:
        """The header's height."""
        return self.signed_header.header.height

    def hash(self) -> bytes:
        """Return the header's hash."""
        return self.signed_header.header.hash()
