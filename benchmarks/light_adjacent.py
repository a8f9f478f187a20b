"""Headers that a light client verifies a second, one after the other, beside the bare signatures that this needs.

The limit is libsodium's own function over the same keys, messages and signatures: as many as CometBFT's rule asks for,
which stops once more than two thirds of the power have signed. Everything else (reading times, hashing headers, sign
bytes, addresses, sums) is what a ratio below one shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from nacl.bindings import crypto_sign_open

from benchmarks.runner import Result, interleaved_medians
from benchmarks.signed_chain import BLOCK_MS, SignedChain, make_chain
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.trust_level import TWO_THIRDS
from dllm_protocol.verification.verifier import Success, TrustedState, verify

NAME = "light-adjacent"
SIGNATURES_A_ROUND = 6_000
SET_SIZES = (1, 8, 128)
ROUNDS = 9
BEGINS = Timestamp.from_rfc3339("2026-01-01T00:00:00Z")


def run() -> Iterator[Result]:
    """For each size of the validator set, headers a second beside what the signatures alone would allow."""
    for size in SET_SIZES:
        steps = max(20, SIGNATURES_A_ROUND // signatures_needed(size))
        chain = make_chain(steps + 1, size, BEGINS)
        now = BEGINS.add_ms((steps + 1) * BLOCK_MS)
        messages = signed_messages(chain)
        ours, bare = interleaved_medians(
            lambda: verified_a_second(chain, now),  # noqa: B023 - called within this turn
            lambda: steps / bare_s(messages),  # noqa: B023 - called within this turn
            rounds=ROUNDS,
        )
        yield Result.of(f"{NAME}/{size}", ours, "headers/s", "bare libsodium verifications", bare)


def signatures_needed(size: int) -> int:
    """How many of a set of equal powers must have signed: more than two thirds."""
    return TWO_THIRDS.power_needed(size) + 1


def verified_a_second(chain: SignedChain, now: Timestamp) -> float:
    """Every header of the chain from the second on, each from the one before."""
    blocks = [chain.light_block(height) for height in range(1, chain.height + 1)]
    options = VerificationOptions(chain.chain_id)
    trusted = TrustedState.of(blocks[0])
    started = time.perf_counter()
    for block in blocks[1:]:
        verdict = verify(block, trusted, options, now)
        if not isinstance(verdict, Success):
            raise RuntimeError(f"header {block.height} was refused: {verdict}")
        trusted = TrustedState.of(block)
    return (chain.height - 1) / (time.perf_counter() - started)


def signed_messages(chain: SignedChain) -> list[tuple[bytes, bytes]]:
    """(signature with message, key) of every signature that the same headers need."""
    found = []
    for height in range(2, chain.height + 1):
        commit = chain.signed_header(height).commit
        for index in range(signatures_needed(len(chain.members))):
            message = commit.sign_bytes(chain.chain_id, index)
            key = chain.members.validators[index].public_key
            found.append((commit.signatures[index].signature + message, key))
    return found


def bare_s(messages: list[tuple[bytes, bytes]]) -> float:
    """Seconds that libsodium takes for them all."""
    started = time.perf_counter()
    for signed, key in messages:
        crypto_sign_open(signed, key)
    return time.perf_counter() - started
