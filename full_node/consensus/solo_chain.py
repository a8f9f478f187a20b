"""A chain with one validator, step by step: execute, sign, commit; and how to go on after a crash.
Synchronous, one thread.

A block becomes real in this order: it is executed in memory; the vote over it, with the block itself, is
made durable by the sign state; then one transaction of the store writes block, results and state. Dying
before the vote loses nothing that anybody saw; dying after it leaves the signed block in the sign state,
from where `open` finishes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dllm_protocol.block import Block, PartSet
from dllm_protocol.block_json import tx_result_to_json
from dllm_protocol.commit import BlockID, BlockIDFlag, Commit, CommitSig, VoteType, vote_sign_bytes
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.genesis_document import consensus_params_of
from dllm_protocol.results import Event, ExecTxResult
from dllm_protocol.signing import Signer
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.transaction import transaction_hash
from dllm_protocol.validator_set import Validator, ValidatorSet, address_of
from full_node.consensus.chain_state import (
    META_NAME,
    ChainState,
    genesis_state,
    validator_set_document,
)
from full_node.consensus.engine import Application, CommittedBlock
from full_node.consensus.sign_state import DoubleSignRefused, SignedVote, SignState
from full_node.state.blocks import BlockRecord
from full_node.state.page import StoreDamaged
from full_node.state.store import Store
from full_node.state.tree import TreeUpdateBatch
from full_node.state_machine.context import BlockContext

MIN_BLOCK_STEP_MS = 1
"""A vote's time is at least this much after its block's (CometBFT's voteTime)."""
_ROUND = 0


class NotOurChain(VerificationFailed):
    """Store, genesis and key do not belong together."""

    code = "E_NOT_OUR_CHAIN"


@dataclass(frozen=True, slots=True)
class _Executed:
    results: Sequence[ExecTxResult]
    events: Sequence[Event]
    updates: Sequence[Validator]
    app_version: int | None
    root: bytes
    batch: TreeUpdateBatch


class SoloChain:
    """The one validator's view of its chain."""

    def __init__(
        self,
        store: Store,
        application: Application,
        genesis: Genesis,
        signer: Signer,
        sign_state: SignState,
        clock_ns: Callable[[], int],
    ) -> None:
        """`clock_ns` gives the wall clock in nanoseconds since 1970."""
        self.store = store
        self.application = application
        self.genesis = genesis
        self.chain_id = chain_id_of(genesis)
        self.params = consensus_params_of(genesis)
        self._signer = signer
        self._sign_state = sign_state
        self._clock_ns = clock_ns
        self._state: ChainState | None = None

    @property
    def state(self) -> ChainState:
        """The chain after its newest block; only after `open`."""
        assert self._state is not None, "the chain is not open"
        return self._state

    @property
    def public_key(self) -> bytes:
        """The validator's key."""
        return self._signer.public_key

    def open(self) -> None:
        """Starts the chain or goes on where it stopped, finishing a block that was signed and not committed.

        Raises:
            NotOurChain: the store is another chain's, or the key is not the validator's.
            DoubleSignRefused: the sign state is ahead of the store by more than the block to finish.
        """
        if self.genesis.params.max_validators != 1:
            raise NotOurChain(
                f"the chain has seats for {self.genesis.params.max_validators} validators, a solo engine runs "
                "chains with 1",
                hint="start it with a consensus engine",
            )
        if self.store.version < 0:
            self._begin()
        else:
            self._state = ChainState.decode(self._stored_state())
            if (self.state.height, self.state.app_hash) != (self.store.version, self.store.root):
                raise StoreDamaged(
                    f"the chain state is of height {self.state.height} and root {self.state.app_hash.hex()}, "
                    f"the tree of height {self.store.version} and root {self.store.root.hex()}",
                    hint="restore the folder from a copy that was taken while the node was stopped",
                )
        self._note_committed()
        if self.state.chain_id != self.chain_id:
            raise NotOurChain(f"the store holds chain {self.state.chain_id}, genesis is of {self.chain_id}")
        _require_sole_power(self.state.validators, self._signer.public_key)
        self._finish_signed_block()

    def make_block(self, txs: Sequence[bytes]) -> CommittedBlock:
        """Makes, signs and commits the next block over these transactions; durable on return."""
        block = self.state.make_block(txs, self.params, address_of(self._signer.public_key))
        executed = self._execute(block)
        encoded = block.encode()
        block_id = BlockID(block.hash(), PartSet.from_bytes(encoded).header)
        time_ns = max(self._clock_ns(), block.header.time.add_ms(MIN_BLOCK_STEP_MS).to_ns())
        height = block.header.height
        message = vote_sign_bytes(
            self.chain_id, VoteType.PRECOMMIT, height, _ROUND, block_id, Timestamp.from_ns(time_ns)
        )
        vote = self._sign_state.sign(self._signer, height, _ROUND, time_ns, message, encoded)
        return self._commit(block, encoded, block_id, vote, executed)

    def _begin(self) -> None:
        root, batch = self.store.put(0, dict(self.application.init_chain(self.genesis)))
        state = genesis_state(self.genesis, root, self.application.app_version)
        _require_sole_power(state.validators, self._signer.public_key)
        self.store.commit(
            batch, None, meta={META_NAME: state.encode()}, validator_sets=_sets(state.validators)
        )
        self._state = state

    def _stored_state(self) -> bytes:
        data = self.store.meta(META_NAME)
        if data is None:
            raise StoreDamaged("the store has blocks but no chain state")
        return data

    def _finish_signed_block(self) -> None:
        vote = self._sign_state.last
        height = self.state.height
        if vote is None or vote.height <= height:
            return
        if vote.height > height + 1:
            raise DoubleSignRefused(
                f"height {vote.height} was signed, the database ends at {height}",
                hint="the database is an old copy; restore the newest one, for signing these heights again "
                "would contradict what others have seen",
            )
        block = Block.decode(vote.block)
        if block != self.state.make_block(block.txs, self.params, block.header.proposer_address):
            raise DoubleSignRefused(
                f"the block signed at height {vote.height} does not follow the database's block {height}",
                hint="the database or the sign state is another chain's",
            )
        block_id = BlockID(block.hash(), PartSet.from_bytes(vote.block).header)
        self._commit(block, vote.block, block_id, vote, self._execute(block))

    def _execute(self, block: Block) -> _Executed:
        header = block.header
        context = BlockContext(self.chain_id, header.height, header.time.to_ns())
        outcome = self.application.finalize_block(context, block.txs)
        if len(outcome.results) != len(block.txs):
            raise RuntimeError(f"{len(block.txs)} transactions gave {len(outcome.results)} results")
        # Everything that could refuse the block is looked at before it is signed.
        updates = [Validator(one.public_key, one.power) for one in outcome.validator_updates]
        updated = self.state.next_validators.with_updates(updates)
        _require_sole_power(updated, self._signer.public_key)
        root, batch = self.store.put(header.height, outcome.changes)
        return _Executed(outcome.results, outcome.events, updates, outcome.app_version, root, batch)

    def _commit(
        self, block: Block, encoded: bytes, block_id: BlockID, vote: SignedVote, executed: _Executed
    ) -> CommittedBlock:
        entry = CommitSig(
            BlockIDFlag.COMMIT,
            address_of(self._signer.public_key),
            Timestamp.from_ns(vote.time_ns),
            vote.signature,
        )
        commit = Commit(vote.height, vote.round, block_id, (entry,))
        following = self.state.after(
            block,
            block_id,
            commit,
            executed.root,
            executed.results,
            executed.updates,
            executed.app_version,
        )
        record = BlockRecord(
            height=vote.height,
            hash=block_id.hash,
            header=block.header.encode(),
            block_id=block_id.encode(),
            seen_commit=commit.encode(),
            block=encoded,
            results=_results_document(executed),
            tx_hashes=[transaction_hash(raw) for raw in block.txs],
            events=_searchable(executed.results),
        )
        sets = _sets(following.validators) | _sets(following.next_validators)
        self.store.commit(executed.batch, record, meta={META_NAME: following.encode()}, validator_sets=sets)
        self._state = following
        self._note_committed()
        return CommittedBlock(block, block_id, commit, executed.results, executed.events)

    def _note_committed(self) -> None:
        self.application.note_committed(self.state.height, self.state.time.to_ns())


def _require_sole_power(members: ValidatorSet, public_key: bytes) -> None:
    ours = members.by_address(address_of(public_key))
    power = ours.voting_power if ours else 0
    if power * 3 <= members.total_power * 2:
        raise NotOurChain(
            f"this node's key {public_key.hex()} has {power} of {members.total_power} voting power; a solo "
            "engine needs more than two thirds",
            hint="use the key that the genesis file names, or join the network with a consensus engine",
        )


def _results_document(executed: _Executed) -> bytes:
    """What `block_results` answers of a block's transactions and of its end, as JSON."""
    document = {
        "txs_results": [tx_result_to_json(one) for one in executed.results],
        "finalize_block_events": tx_result_to_json(ExecTxResult(events=tuple(executed.events)))["events"],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _searchable(results: Sequence[ExecTxResult]) -> list[tuple[str, str, int]]:
    return [
        (f"{event.type}.{attribute.key}", attribute.value, place)
        for place, result in enumerate(results)
        for event in result.events
        for attribute in event.attributes
        if attribute.index
    ]


def _sets(members: ValidatorSet) -> dict[bytes, bytes]:
    return {members.hash(): json.dumps(validator_set_document(members)).encode()}
