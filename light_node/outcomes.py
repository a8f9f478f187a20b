"""What became of a sent transaction: included, impossible or unknown, each by proof, never by guess.

Every transaction of an account that paid its fee in a block, failed ones too, raises the account's sequence by one. So
one proved sequence says a lot: while it is not above the transaction's, no block has carried the transaction out; once
it is above, exactly one block took it there, and that block, whole and held against its header, says by which one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from dllm_protocol.block import tx_hash, verify_tx
from dllm_protocol.block_errors import InvalidBlock, require_equal
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut
from dllm_protocol.merkle import Proof
from dllm_protocol.refusals import SequenceGap, refusal_from_code
from dllm_protocol.results import ExecTxResult, last_results_hash
from dllm_protocol.transaction import Transaction
from light_node.client import LightClient
from light_node.errors import AnswerRefused, SourceMalformed
from light_node.queries import ProvedReads
from light_node.source import Source

PROOF_BLOCK_TIMEOUT_S = 10.0
POLL_FIRST_S = 0.02
"""A block that was made before the announcements began is found by looking again soon, then ever later."""
POLL_MAX_S = 0.5
SEARCH_HEIGHTS_MAX = 1 << 20
GAP_WAIT_S = 3.0
"""How long a transaction may be too early: two programs that share an account may hand theirs in swapped."""
GAP_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Included:
    """It stands in a block, and what came of it is proved."""

    tx_hash: bytes
    height: int
    index: int
    result: ExecTxResult
    """Proved: code, data, gas. Log and events are the node's words."""

    @property
    def succeeded(self) -> bool:
        """Whether its actions took effect; when not, fee and sequence were used up all the same."""
        return self.result.code == 0


@dataclass(frozen=True, slots=True)
class Impossible:
    """It stands in no block and never will."""

    tx_hash: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither can be proved now."""

    tx_hash: bytes
    reason: str
    hint: str
    """How to find out."""


Outcome: TypeAlias = Included | Impossible | Unknown


class Outcomes:
    """Sends transactions and finds out what became of them."""

    def __init__(self, client: LightClient, reads: ProvedReads | None = None) -> None:
        self._client = client
        self._reads = reads or ProvedReads(client)

    async def send(self, raw: bytes) -> bytes:
        """Hand a transaction to the node and return its hash. It may be lost still: ask `wait_for`.

        One whose predecessor is not there yet is handed in again for a moment; CometBFT's mempool, other than the
        solo engine's, cannot hold it.

        Raises:
            TransactionRefused: the leaf that the mempool's code stands for.
        """
        deadline = self._client.clock.monotonic_s() + GAP_WAIT_S
        while True:
            try:
                return await self._hand_in(raw)
            except SequenceGap:
                if self._client.clock.monotonic_s() >= deadline:
                    raise
            await asyncio.sleep(GAP_PAUSE_S)

    async def _hand_in(self, raw: bytes) -> bytes:
        answer = await self._client.ask(lambda source: source.broadcast_tx_sync(raw))
        if answer.hash != tx_hash(raw):
            raise AnswerRefused(f"sent transaction {tx_hash(raw).hex()}, the node took {answer.hash.hex()}")
        if answer.code:
            raise refusal_from_code(answer.code, answer.log)
        return answer.hash

    async def outcome(self, raw: bytes, *, since_height: int = 1) -> Outcome:
        """Find out now what became of a transaction.

        Args:
            raw: its bytes.
            since_height: a height that was verified before it was signed; the search begins there.

        Raises:
            VerificationFailed, NetworkUnreachable, TimedOut, MalformedBytes.
        """
        found = await self._client.ask(lambda source: source.tx(tx_hash(raw)))
        if found is not None:
            if found.tx != raw:
                raise AnswerRefused(
                    f"asked for transaction {tx_hash(raw).hex()}, answered {found.hash.hex()}"
                )
            included = await self._proved_inclusion(raw, found.height, found.proof)
            if not _was_refused(included.result):
                return included
            # A copy that came too early, too late or without its fee did nothing, and another may count, before it
            # or after: the account's sequence leads to the one that does.
        return await self._proved_absence(raw, since_height)

    async def wait_for(self, raw: bytes, *, since_height: int = 1, timeout_s: float = 30.0) -> Outcome:
        """Wait until a transaction is included or impossible, at most `timeout_s` seconds.

        Driven by the node's announcements of new blocks, with polling beside them in case they stop.
        """
        client = self._client
        deadline = client.clock.monotonic_s() + timeout_s
        announced = asyncio.Event()
        listener = asyncio.create_task(_listen(client.primary.new_heights(), announced))
        poll_s = POLL_FIRST_S
        try:
            while True:
                left_s = deadline - client.clock.monotonic_s()
                try:
                    async with asyncio.timeout(max(left_s, 0.001)):
                        latest = await self.outcome(raw, since_height=since_height)
                except (NetworkUnreachable, TimedOut, TimeoutError) as error:
                    words = (
                        error.message if isinstance(error, DllmError) else f"no answer within {timeout_s:g} s"
                    )
                    latest = Unknown(
                        tx_hash(raw), words, "ask again with the same bytes when the node answers"
                    )
                if not isinstance(latest, Unknown) or client.clock.monotonic_s() >= deadline:
                    return latest
                with suppress(TimeoutError):
                    async with asyncio.timeout(poll_s):
                        await announced.wait()
                poll_s = min(2 * poll_s, POLL_MAX_S)
                announced.clear()
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _proved_inclusion(self, raw: bytes, height: int, proof: Proof | None) -> Included:
        """The block at `height` is said to hold it: prove that, then prove its result by the next header."""
        source = self._client.primary
        header = await self._client.wait_for_header(height, PROOF_BLOCK_TIMEOUT_S)
        if proof is not None:
            verify_tx(proof, header.data_hash, raw)
            copies, total = [proof.index], proof.total
        else:
            txs = await self._proved_block(height)
            if raw not in txs:
                raise AnswerRefused(
                    f"transaction {tx_hash(raw).hex()} is said to stand in block {height}, it does not"
                )
            copies, total = [index for index, tx in enumerate(txs) if tx == raw], len(txs)
        following = await self._client.wait_for_header(height + 1, PROOF_BLOCK_TIMEOUT_S)
        results = await source.block_results(height)
        require_equal(f"number of results of block {height}", len(results), total)
        require_equal(f"results of block {height}", last_results_hash(results), following.last_results_hash)
        index = next((one for one in copies if not _was_refused(results[one])), copies[0])
        return Included(tx_hash(raw), height, index, results[index])

    async def _proved_absence(self, raw: bytes, since_height: int) -> Outcome:
        """The node does not know it: say what the account's proved sequence says."""
        body = Transaction.decode(raw).body
        name = tx_hash(raw)
        height = await self._reads.provable_height()
        sequence = await self._sequence(body.account, height)
        if sequence <= body.sequence:
            if body.timeout_height and height >= body.timeout_height:
                return Impossible(
                    name,
                    f"its timeout height {body.timeout_height} is over and sequence {body.sequence} was not used",
                )
            until = f"until height {body.timeout_height}" if body.timeout_height else "without limit"
            return Unknown(
                name,
                f"not in a block up to {height}, and it may still be included ({until})",
                "ask again later, or send another transaction with the same sequence to settle it",
            )
        taken_at = await self._height_that_used(body.account, body.sequence, since_height, height)
        if taken_at is None:
            return Unknown(
                name,
                f"sequence {body.sequence} was used at or before height {since_height}, which is not searched",
                "ask with a lower since_height, on a node that keeps older states",
            )
        txs = await self._proved_block(taken_at)
        if raw in txs:
            return await self._proved_inclusion(raw, taken_at, None)
        return Impossible(
            name, f"sequence {body.sequence} was used by another transaction in block {taken_at}"
        )

    async def _height_that_used(self, account: bytes, sequence: int, low: int, high: int) -> int | None:
        """The block in which the account's sequence passed `sequence`: known passed at `high`, searched above `low`."""
        if not 1 <= low < high <= low + SEARCH_HEIGHTS_MAX or await self._sequence(account, low) > sequence:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if await self._sequence(account, middle) > sequence:
                high = middle
            else:
                low = middle
        return high

    async def _sequence(self, account: bytes, height: int) -> int:
        record = await self._reads.account(account, height)
        return 0 if record is None else record.sequence

    async def _proved_block(self, height: int) -> tuple[bytes, ...]:
        """All transactions of a block, held against the verified header."""
        header = await self._client.verified_header(height)

        async def shown_by(source: Source) -> tuple[bytes, ...]:
            _, block = await source.block(height)
            require_equal(f"hash of block {height}", block.hash(), header.hash())
            try:
                block.validate_basic()
            except InvalidBlock as error:
                raise SourceMalformed(f"block {height}: {error.message}") from error
            return block.txs

        return await self._client.ask(shown_by)


def _was_refused(result: ExecTxResult) -> bool:
    """Whether a transaction that stands in a block changed nothing, not even its account's sequence.

    Then it used no gas. One whose actions failed used the gas that its fee paid for.
    """
    return result.code != 0 and result.gas_used == 0


async def _listen(heights: AsyncIterator[int], announced: asyncio.Event) -> None:
    """Set the event at each announcement. When the announcements end, polling goes on alone."""
    with suppress(DllmError):
        async for _ in heights:
            announced.set()
