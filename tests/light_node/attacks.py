"""Chains that validators forked on purpose, one for each kind of attack, and the judge's view of an honest chain."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_protocol.light_block import SignedHeader
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.evidence import EvidenceAge
from tests.light_node.signed_chain import SignedChain

AGE = EvidenceAge(100_000, 48 * 3600 * 10**9)


def lunatic_fork(
    chain: SignedChain, height: int, length: int = 1, signing: Sequence[str] | None = None
) -> SignedChain:
    """From a height on, the state is made up."""
    made = chain.forked(height)
    for _ in range(length):
        made.add(signing=signing, lie={"app_hash": b"\x07" * 32})
    return made


def equivocation_fork(chain: SignedChain, height: int, signing: Sequence[str] | None = None) -> SignedChain:
    """At a height, another block that follows from the same state, signed in the same round."""
    made = chain.forked(height)
    made.add([b"another transaction"], signing=signing)
    return made


def amnesia_fork(chain: SignedChain, height: int, signing: Sequence[str] | None = None) -> SignedChain:
    """At a height, another block that follows from the same state, signed in a later round."""
    made = chain.forked(height)
    made.add([b"another transaction"], signing=signing, round_=1)
    return made


class HonestHistory:
    """A `ChainHistory` that is a SignedChain."""

    def __init__(self, chain: SignedChain) -> None:
        self._chain = chain

    @property
    def chain_id(self) -> str:
        return self._chain.chain_id

    @property
    def latest_height(self) -> int:
        return self._chain.height

    def signed_header(self, height: int) -> SignedHeader | None:
        return self._chain.signed_header(height) if height in self._chain.blocks else None

    def validators(self, height: int) -> ValidatorSet | None:
        return self._chain.set_at(height) if height in self._chain.validators else None
