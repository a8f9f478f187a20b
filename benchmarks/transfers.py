"""Signed transfers for benchmarks, from keys that are the same in every run."""

from __future__ import annotations

from dllm_protocol.actions import Transfer
from dllm_protocol.address import address_of
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction

FEE_UDLLM = 10_000


def numbered_signers(count: int) -> list[SeedSigner]:
    """So many keys."""
    return [SeedSigner(number.to_bytes(32, "big")) for number in range(1, count + 1)]


def signed_transfer(chain_id: str, sender: SeedSigner, sequence: int, recipient: SeedSigner) -> bytes:
    """One udllm from one to the other."""
    body = make_body(
        chain_id,
        address_of(sender.public_key),
        sender.public_key,
        sequence,
        [Transfer(address_of(recipient.public_key), 1)],
        fee_udllm=FEE_UDLLM,
    )
    return sign_transaction(sender, body).encode()
