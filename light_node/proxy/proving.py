"""Blocks, commits, results, validators and transactions as one node claims them, held against verified headers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from dllm_protocol.block import Block, block_id_of, verify_tx
from dllm_protocol.block_errors import InvalidBlock, require_equal
from dllm_protocol.commit import BlockID, BlockIDFlag, Commit, CommitSig
from dllm_protocol.errors import DllmError
from dllm_protocol.header import Header
from dllm_protocol.light_block import SignedHeader
from dllm_protocol.results import ExecTxResult, last_results_hash
from dllm_protocol.signing import verify
from dllm_protocol.validator_set import Validator, ValidatorSet
from dllm_protocol.verification.trust_level import TWO_THIRDS
from light_node.answers import TxAnswer
from light_node.client import LightClient
from light_node.errors import AnswerRefused, NotYetProvable
from light_node.proxy.upstream import Upstream

PROOF_BLOCK_TIMEOUT_S = 10.0
"""How long an answer waits for the header that proves it."""
INDEX_TIMEOUT_S = 5.0
INDEX_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ProvedTx:
    """A transaction that stands in a block, with its result."""

    answer: TxAnswer
    header: Header
    """Verified, of its block."""
    result: ExecTxResult
    """Proved: code, data, gas; the rest is empty."""


class Proving:
    """Asks the primary of a light client and returns only what its verified headers prove.

    Every method raises VerificationFailed for a lie, and what the client raises.
    """

    def __init__(self, client: LightClient) -> None:
        self.client = client

    @property
    def upstream(self) -> Upstream:
        """The node asked now; the client may have replaced the one before."""
        primary = self.client.primary
        if not isinstance(primary, Upstream):
            raise TypeError(f"{primary.name} is a source that the proxy cannot ask")
        return primary

    async def tip(self) -> Header:
        """The newest verified header."""
        return await self.client.sync()

    async def header(self, height: int | None) -> Header:
        """The verified header at a height; the newest when None."""
        return await self.tip() if height is None else await self.client.verified_header(height)

    async def signed_header(self, height: int | None) -> SignedHeader:
        """A verified header with a commit of which every signature was checked."""
        header = await self.header(height)
        commit = (await self.upstream.signed_header(header.height)).commit
        return SignedHeader(header, proved_commit(header, await self.validators_of(header), commit))

    async def block_id(self, header: Header) -> BlockID:
        """The id of a verified header's block: named by the next header, or else signed by its validators."""
        latest = self.client.status().height
        if header.height < latest:
            return (await self.client.verified_header(header.height + 1)).last_block_id
        return (await self.signed_header(header.height)).commit.block_id

    async def block(self, height: int | None) -> tuple[BlockID, Block]:
        """A whole block under its verified header."""
        header = await self.header(height)
        return await self.block_named(header.height, await self.block_id(header))

    async def block_named(self, height: int, block_id: BlockID) -> tuple[BlockID, Block]:
        """The block at a height, whose id is proved already: its parts cover every byte."""
        _, block = await self.upstream.block(height)
        require_equal(f"hash of block {height}", block.hash(), block_id.hash)
        block.validate_basic()
        found = block_id_of(block)
        require_equal(f"parts of block {height}", found.encode(), block_id.encode())
        return found, block

    async def height_of(self, block_hash: bytes) -> int | None:
        """The height of the block with a hash, proved; None where the node says that there is none."""
        height = await self.upstream.height_of(block_hash)
        if height is None:
            return None
        header = await self.client.verified_header(height)
        require_equal(f"hash of header {height}", header.hash(), block_hash)
        return height

    async def following(self, height: int) -> Header:
        """The verified header after a height, waited for if the chain is about to make it."""
        return await self.client.wait_for_header(height + 1, PROOF_BLOCK_TIMEOUT_S)

    async def results(self, height: int) -> tuple[tuple[ExecTxResult, ...], Header]:
        """What the transactions of a block came to, and the header that proves it. What it does not cover is empty."""
        following = await self.following(height)
        results = await self.upstream.block_results(height)
        require_equal(f"results of block {height}", last_results_hash(results), following.last_results_hash)
        return tuple(_proved_part(one) for one in results), following

    async def validators(self, height: int | None) -> tuple[int, ValidatorSet]:
        """The validators of a height, by default of the one after the newest header, and that height."""
        tip = self.client.status().height
        if height is None or height == tip + 1:
            header = await self.tip() if height is None else await self.client.verified_header(tip)
            asked, expected = header.height + 1, header.next_validators_hash
        else:
            header = await self.client.verified_header(height)
            asked, expected = height, header.validators_hash
        return asked, await self._agreed_set(asked, expected)

    async def validators_of(self, header: Header) -> ValidatorSet:
        """The validators of a verified header."""
        return await self._set(header.height, header.validators_hash)

    async def changed_validators(self, following: Header) -> tuple[Validator, ...]:
        """How the set after a header differs from the header's own: what the block below it decided.

        A removed validator has power 0.
        """
        if following.validators_hash == following.next_validators_hash:
            return ()
        before = await self.validators_of(following)
        after = await self._set(following.height + 1, following.next_validators_hash)
        changed = [
            one
            for one in after.validators
            if (old := before.by_address(one.address)) is None or old.voting_power != one.voting_power
        ]
        gone = [
            replace(one, voting_power=0) for one in before.validators if after.by_address(one.address) is None
        ]
        return (*changed, *gone)

    async def transaction(self, tx_hash: bytes) -> ProvedTx | None:
        """A transaction under its header; None where the node says that it knows none."""
        answer = await self.upstream.tx(tx_hash)
        return None if answer is None else await self.proved_tx(answer)

    async def indexed_transaction(self, tx_hash: bytes) -> ProvedTx | None:
        """A transaction that the node says is in a block: its index may learn of it a moment after that."""
        clock = self.client.clock
        deadline_s = clock.monotonic_s() + INDEX_TIMEOUT_S
        while True:
            found = await self.transaction(tx_hash)
            if found is not None or clock.monotonic_s() >= deadline_s:
                return found
            await clock.sleep(INDEX_POLL_S)

    async def proved_tx(self, answer: TxAnswer) -> ProvedTx:
        """What a node says of a transaction: its place under data_hash, its result under last_results_hash."""
        header = await self.client.wait_for_header(answer.height, PROOF_BLOCK_TIMEOUT_S)
        if answer.proof is None:
            raise AnswerRefused(
                f"transaction {answer.hash.hex()} is said to stand in block {answer.height}, without proof"
            )
        verify_tx(answer.proof, header.data_hash, answer.tx)
        require_equal("place of the transaction", answer.index, answer.proof.index)
        results, _ = await self.results(answer.height)
        require_equal(f"number of results of block {answer.height}", len(results), answer.proof.total)
        return ProvedTx(answer, header, results[answer.index])

    async def provable_height(self) -> int:
        """The newest height whose results a verified header proves."""
        tip = await self.tip()
        if tip.height < 2:
            raise NotYetProvable(
                "the chain has one block yet: its results are proved by the next", hint="ask again"
            )
        return tip.height - 1

    async def _set(self, height: int, expected_hash: bytes) -> ValidatorSet:
        members = await self.upstream.validators(height)
        require_equal(f"hash of the validators of height {height}", members.hash(), expected_hash)
        return members

    async def _agreed_set(self, height: int, expected_hash: bytes) -> ValidatorSet:
        """A proved set with proposer priorities, which no hash covers: shown where a witness shows the same."""
        members = await self._set(height, expected_hash)
        answers = await asyncio.gather(
            *(one.validators(height) for one in self.client.witnesses), return_exceptions=True
        )
        agreed = False
        for witness, answer in zip(self.client.witnesses, answers, strict=True):
            if isinstance(answer, ValidatorSet):
                what = f"hash of the proposer priorities at {height}, which {witness.name} shows too"
                require_equal(what, members.priority_hash(), answer.priority_hash())
                agreed = True
            elif not isinstance(answer, DllmError):
                raise answer
        if agreed:
            return members
        return ValidatorSet(tuple(replace(one, proposer_priority=0) for one in members.validators))


def proved_commit(header: Header, validators: ValidatorSet, commit: Commit) -> Commit:
    """A commit over a verified header; a signature that does not hold is shown as absent.

    Raises:
        InvalidBlock: it is over something else, or too little power stands behind it.
    """
    commit.validate_basic()
    require_equal("height of the commit", commit.height, header.height)
    require_equal("hash in the commit", commit.block_id.hash, header.hash())
    require_equal("number of signatures", len(commit.signatures), len(validators))
    kept: list[CommitSig] = []
    signed_power = 0
    for index, (entry, member) in enumerate(zip(commit.signatures, validators.validators, strict=True)):
        if not _holds(header.chain_id, commit, index, entry, member):
            kept.append(CommitSig.absent())
            continue
        kept.append(entry)
        if entry.flag is BlockIDFlag.COMMIT:
            signed_power += member.voting_power
    needed = TWO_THIRDS.power_needed(validators.total_power)
    if signed_power <= needed:
        raise InvalidBlock(
            f"commit of height {header.height}: {signed_power} of {validators.total_power} signed, "
            f"more than {needed} needed"
        )
    return replace(commit, signatures=tuple(kept))


def _holds(chain_id: str, commit: Commit, index: int, entry: CommitSig, member: Validator) -> bool:
    if entry.flag is BlockIDFlag.ABSENT or entry.validator_address != member.address:
        return False
    return verify(member.public_key, commit.sign_bytes(chain_id, index), entry.signature)


def _proved_part(result: ExecTxResult) -> ExecTxResult:
    return ExecTxResult(
        code=result.code, data=result.data, gas_wanted=result.gas_wanted, gas_used=result.gas_used
    )
