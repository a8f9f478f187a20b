"""A chain of empty blocks made and signed in memory, as fast as this machine signs: what light clients are fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count, islice

from dllm_protocol.block import Block, LightBlock, SignedHeader, block_id_of, data_hash
from dllm_protocol.commit import (
    ZERO_BLOCK_ID,
    BlockIDFlag,
    Commit,
    CommitSig,
    VoteType,
    vote_sign_bytes,
)
from dllm_protocol.consensus_params import HashedParams
from dllm_protocol.evidence import evidence_hash
from dllm_protocol.header import Header
from dllm_protocol.results import last_results_hash
from dllm_protocol.signing import SeedSigner
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet, address_of

CHAIN_ID = "bench-chain"
POWER = 10
BLOCK_MS = 1_000


@dataclass(frozen=True, slots=True)
class SignedChain:
    """Signed headers from height 1 on, all by one set."""

    chain_id: str
    members: ValidatorSet
    encoded: list[tuple[bytes, bytes]]
    """(header, commit) by height - 1, as they would be stored."""

    @property
    def height(self) -> int:
        """The tip's height."""
        return len(self.encoded)

    def signed_header(self, height: int) -> SignedHeader:
        """A height's header and commit, read anew, so that nothing is remembered from an earlier look."""
        header, commit = self.encoded[height - 1]
        return SignedHeader(Header.decode(header), Commit.decode(commit))

    def light_block(self, height: int) -> LightBlock:
        """A height's light block, read anew; the set is shared, as a client shares it by its hash."""
        return LightBlock(self.signed_header(height), self.members, self.members)


def bench_signers(validators: int) -> list[SeedSigner]:
    """The keys of a set of so many, in the set's own order."""
    signers = [SeedSigner(sha256(b"bench validator %d" % number).digest()) for number in range(validators)]
    return sorted(signers, key=lambda one: address_of(one.public_key))


def set_of(signers: Sequence[SeedSigner]) -> ValidatorSet:
    """Validators of equal power."""
    return ValidatorSet(tuple(Validator(one.public_key, POWER) for one in signers))


def signed_headers(signers: Sequence[SeedSigner], begins: Timestamp) -> Iterator[SignedHeader]:
    """A chain without end whose set never changes; everybody signs every block.

    Args:
        signers: in the set's own order.
        begins: time of the first block; each later one is a second after the one before.
    """
    members = set_of(signers)
    last_id, last_commit = ZERO_BLOCK_ID, Commit.empty()
    for height in count(1):
        header = Header(
            chain_id=CHAIN_ID,
            height=height,
            time=begins.add_ms((height - 1) * BLOCK_MS),
            last_block_id=last_id,
            last_commit_hash=last_commit.hash(),
            data_hash=data_hash(()),
            validators_hash=members.hash(),
            next_validators_hash=members.hash(),
            consensus_hash=HashedParams().hash(),
            app_hash=sha256(b"state").digest(),
            last_results_hash=last_results_hash(()),
            evidence_hash=evidence_hash(()),
            proposer_address=members.validators[height % len(members)].address,
        )
        last_id = block_id_of(Block(header, (), (), last_commit))
        at = header.time.add_ms(BLOCK_MS)
        entries = []
        for index, (signer, validator) in enumerate(zip(signers, members.validators, strict=True)):
            moment = at.add_ns(index)
            message = vote_sign_bytes(CHAIN_ID, VoteType.PRECOMMIT, height, 0, last_id, moment)
            signature = signer.sign(message)
            entries.append(CommitSig(BlockIDFlag.COMMIT, validator.address, moment, signature))
        last_commit = Commit(height, 0, last_id, tuple(entries))
        yield SignedHeader(header, last_commit)


def make_chain(heights: int, validators: int, begins: Timestamp) -> SignedChain:
    """So many blocks of `signed_headers`, by a set of so many."""
    signers = bench_signers(validators)
    made = islice(signed_headers(signers, begins), heights)
    return SignedChain(
        CHAIN_ID, set_of(signers), [(one.header.encode(), one.commit.encode()) for one in made]
    )
