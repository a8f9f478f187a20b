"""Joins CometBFT's questions to the state machine and its store; it only translates and keeps the order.

What a block does is computed once (when it is prepared, judged or decided, whichever comes first) and written by
Commit alone, in one transaction. So a node that dies at any moment stands at a whole block, and CometBFT, which has
the blocks, tells it the rest again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dllm_protocol.consensus_params import BLOCK_TXS_MAX
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.genesis_document import consensus_params_of
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.abci import requests, responses
from full_node.consensus.abci.responses import ProposalStatus, Response
from full_node.consensus.abci.types import Offence, ValidatorPower
from full_node.consensus.chain_state import META_NAME as SOLO_META_NAME
from full_node.consensus.chain_state import NS_PER_MS
from full_node.consensus.cometbft.proposals import fitting, order_by_priority, reason_to_reject
from full_node.consensus.cometbft.queries import CODESPACE, REFUSED, answer_query
from full_node.consensus.cometbft.retention import Retention
from full_node.consensus.cometbft.state_sync import StateSync
from full_node.consensus.engine import JudgedOutcome, ProposingApplication
from full_node.consensus.solo_chain import NotOurChain
from full_node.halting import HaltReached
from full_node.state.page import StoreDamaged
from full_node.state.store import Store
from full_node.state.tree import TreeUpdateBatch
from full_node.state_machine.context import BlockContext, Misbehaviour, MisbehaviourKind

log = logging.getLogger(__name__)
META_NAME = "cometbft_state"
INITIAL_HEIGHT = 1


@dataclass(frozen=True, slots=True)
class _Tried:
    """A block that was executed in memory."""

    block: BlockContext
    txs: tuple[bytes, ...]
    outcome: JudgedOutcome


@dataclass(frozen=True, slots=True)
class _Decided:
    """A block that only Commit is missing for."""

    height: int
    time_ns: int
    batch: TreeUpdateBatch


class Driver:
    """The application as CometBFT sees it. One thread."""

    def __init__(
        self,
        store: Store,
        application: ProposingApplication,
        genesis: Genesis,
        snapshots: StateSync,
        *,
        version: str,
        block_window: int = 0,
        halt_height: int = 0,
        on_halt: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        snapshots: what this node gives to others, and how it begins from another's.
        version: this program's, for `abci_info`.
        block_window: how many blocks CometBFT keeps at least; 0 = all.
        halt_height: no block after this one is made, judged or executed; 0 = none.
        on_halt: told when that block is in the store.
        """
        self._halt_height = halt_height
        self._on_halt = on_halt
        self._store = store
        self._application = application
        self._genesis = genesis
        self._chain_id = chain_id_of(genesis)
        self._params = consensus_params_of(genesis)
        self._snapshots = snapshots
        self._version = version
        params = self._params
        self._retention = Retention(block_window, params.evidence_max_age_blocks, params.evidence_max_age_ns)
        self._tried: _Tried | None = None
        self._decided: _Decided | None = None
        self._answers: dict[type, Callable[[Any], Response]] = {
            requests.Info: self._info,
            requests.InitChain: self._init_chain,
            requests.Query: self._query,
            requests.CheckTx: self._check_tx,
            requests.PrepareProposal: self._prepare_proposal,
            requests.ProcessProposal: self._process_proposal,
            requests.OverfullProposal: self._reject_overfull,
            requests.FinalizeBlock: self._finalize_block,
            requests.Commit: self._commit,
            requests.ExtendVote: self._extend_vote,
            requests.VerifyVoteExtension: self._verify_vote_extension,
            requests.ListSnapshots: snapshots.list,
            requests.LoadSnapshotChunk: snapshots.load,
            requests.OfferSnapshot: snapshots.offer,
            requests.ApplySnapshotChunk: self._apply_snapshot_chunk,
        }

    @property
    def height(self) -> int:
        """The newest block whose state is durable; 0 before the first."""
        return max(0, self._store.version)

    @property
    def has_halted(self) -> bool:
        """Whether the state stands at the height after which it was to halt."""
        return 0 < self._halt_height <= self._store.version

    @property
    def app_hash(self) -> bytes:
        """Root of the newest durable state."""
        return self._store.root

    def open(self) -> None:
        """Goes on where the store stands. Raises NotOurChain, StoreDamaged."""
        if self._store.meta(SOLO_META_NAME) is not None:
            raise NotOurChain(
                "this folder's chain is run by the solo engine",
                hint="start it with --engine solo, or join another network from a new folder",
            )
        if self._store.version < 0:
            return
        self._note_committed(self._remembered_time_ns())

    def handle(self, request: requests.Request) -> Response:
        """Answers one request; what it raises must end the node."""
        return self._answers[type(request)](request)

    def _remembered_time_ns(self) -> int:
        """Block time of the store's height, as Commit wrote it; genesis time for a state that came otherwise."""
        stored = self._store.meta(META_NAME)
        if stored is not None:
            try:
                document = json.loads(stored)
                height, time_ns = int(document["height"]), int(document["time_ns"])
                marks = tuple((int(one), int(when)) for one, when in document["marks"])
            except (ValueError, KeyError, TypeError) as error:
                raise StoreDamaged(f"the stored engine state cannot be read: {error}") from error
            if height == self._store.version:
                self._retention = replace(self._retention, marks=marks)
                return time_ns
            raise StoreDamaged(
                f"the engine state is of height {height}, the tree of height {self._store.version}",
                hint="restore the folder from a copy that was taken while the node was stopped",
            )
        return self._genesis.genesis_time_ms * NS_PER_MS

    def _note_committed(self, time_ns: int) -> None:
        self._application.note_committed(self._store.version, time_ns)

    def _info(self, request: requests.Info) -> Response:
        # Strangers cause it too, by `abci_info`: not a line of the log each time.
        log.debug("cometbft version=%s abci=%s height=%d", request.version, request.abci_version, self.height)
        root = self._store.root if self.height else b""
        return responses.Info("dllm", self._version, self._application.app_version, self.height, root)

    def _init_chain(self, request: requests.InitChain) -> Response:
        """May come again after a crash before the first Commit; then the first state is there already."""
        self._require_our_genesis(request)
        if self._store.version < 0:
            root, batch = self._store.put(0, dict(self._application.init_chain(self._genesis)))
            meta = self._meta(0, request.time.to_ns())
            self._store.commit(batch, None, meta=meta, validator_sets={})
            log.info("chain=%s begins root=%s", self._chain_id, root.hex())
        if self._store.version != 0:
            raise NotOurChain(
                f"CometBFT begins the chain anew, the state is at height {self._store.version}",
                hint="CometBFT's data folder was lost; restore it, or join the network from a new folder",
            )
        self._note_committed(request.time.to_ns())
        return responses.InitChain(self._store.root)

    def _require_our_genesis(self, request: requests.InitChain) -> None:
        ours = {one.public_key: one.power for one in self._genesis_powers()}
        theirs = {one.public_key: one.power for one in request.validators}
        genesis_time = Timestamp.from_ns(self._genesis.genesis_time_ms * NS_PER_MS)
        for what, claimed, found in (
            ("chain id", request.chain_id, self._chain_id),
            ("initial height", request.initial_height, INITIAL_HEIGHT),
            ("genesis time", request.time, genesis_time),
            ("consensus parameters", request.params, self._params),
            ("validators", theirs, ours),
        ):
            if claimed != found:
                raise NotOurChain(f"{what}: CometBFT's genesis says {claimed}, ours {found}")

    def _genesis_powers(self) -> Sequence[ValidatorPower]:
        return [ValidatorPower(one.public_key, one.power) for one in self._genesis.validators]

    def _query(self, request: requests.Query) -> Response:
        return answer_query(self._store, self._application, request)

    def _check_tx(self, request: requests.CheckTx) -> Response:
        if self._store.version < 0:
            # While the state still comes from peers, they and callers send transactions already.
            return responses.CheckTx(REFUSED, "this node has no state yet", codespace=CODESPACE)
        result = self._application.check_tx(request.tx)
        return responses.CheckTx(result.code, result.log, result.gas_wanted, result.codespace)

    def _prepare_proposal(self, request: requests.PrepareProposal) -> Response:
        if self._is_past_halt(request.height):
            return responses.PrepareProposal(())
        ordered = order_by_priority(request.txs, self._application.appraise)
        txs = tuple(fitting(ordered, request.max_tx_bytes))
        block = self._context(request.height, request.time, request.misbehaviour)
        unpaid = set(self._execute(block, txs).unpaid)
        if unpaid:
            # Those left out changed nothing, so the others stand as they would without them.
            txs = tuple(raw for place, raw in enumerate(txs) if place not in unpaid)
        return responses.PrepareProposal(txs)

    def _process_proposal(self, request: requests.ProcessProposal) -> Response:
        if self._is_past_halt(request.height):
            return responses.ProcessProposal(ProposalStatus.REJECT)
        reason = reason_to_reject(request.txs, self._application.appraise)
        if not reason:
            block = self._context(request.height, request.time, request.misbehaviour)
            if unpaid := self._execute(block, request.txs).unpaid:
                reason = f"transaction {unpaid[0]} does not pay for its place"
        if reason:
            log.warning(
                "rejected a proposal height=%d proposer=%s: %s",
                request.height,
                request.proposer.hex(),
                reason,
            )
        return responses.ProcessProposal(ProposalStatus.REJECT if reason else ProposalStatus.ACCEPT)

    def _reject_overfull(self, _request: requests.OverfullProposal) -> Response:
        log.warning("rejected a proposal: more than %d transactions", BLOCK_TXS_MAX)
        return responses.ProcessProposal(ProposalStatus.REJECT)

    def _finalize_block(self, request: requests.FinalizeBlock) -> Response:
        block = self._context(request.height, request.time, request.misbehaviour)
        outcome = self._execute(block, request.txs)
        if len(outcome.results) != len(request.txs):
            raise RuntimeError(f"{len(request.txs)} transactions gave {len(outcome.results)} results")
        root, batch = self._store.put(request.height, outcome.changes)
        self._decided = _Decided(request.height, block.time_ns, batch)
        return responses.FinalizeBlock(
            results=tuple(outcome.results),
            app_hash=root,
            events=tuple(outcome.events),
            validator_updates=tuple(
                ValidatorPower(one.public_key, one.power) for one in outcome.validator_updates
            ),
            app_version=outcome.app_version,
        )

    def _commit(self, _request: requests.Commit) -> Response:
        decided = self._decided
        if decided is None:
            raise RuntimeError("Commit without FinalizeBlock")
        self._retention = self._retention.after(decided.height, decided.time_ns)
        meta = self._meta(decided.height, decided.time_ns)
        self._store.commit(decided.batch, None, meta=meta, validator_sets={})
        self._tried = self._decided = None
        self._note_committed(decided.time_ns)
        self._snapshots.note_committed(decided.height)
        if self.has_halted:
            self._on_halt()
        return responses.Commit(self._retention.retain_height(decided.height))

    def _meta(self, height: int, time_ns: int) -> dict[str, bytes]:
        document = {"height": height, "time_ns": time_ns, "marks": self._retention.marks}
        return {META_NAME: json.dumps(document, separators=(",", ":")).encode()}

    def _extend_vote(self, _request: requests.ExtendVote) -> Response:
        return responses.ExtendVote()

    def _verify_vote_extension(self, request: requests.VerifyVoteExtension) -> Response:
        return responses.VerifyVoteExtension(
            ProposalStatus.REJECT if request.extension else ProposalStatus.ACCEPT
        )

    def _apply_snapshot_chunk(self, request: requests.ApplySnapshotChunk) -> Response:
        answer = self._snapshots.apply(request)
        if self._store.version > 0 and not self._snapshots.is_under_way:
            self._note_committed(self._genesis.genesis_time_ms * NS_PER_MS)
        return answer

    def _is_past_halt(self, height: int) -> bool:
        """Whether a block is another program's. While peers still fetch the last block from here, rounds over the next
        one go by without a vote for it.
        """
        return 0 < self._halt_height < height

    def _context(self, height: int, time: Timestamp, offences: tuple[Offence, ...]) -> BlockContext:
        return BlockContext(
            self._chain_id, height, time.to_ns(), tuple(_misbehaviour(one) for one in offences)
        )

    def _execute(self, block: BlockContext, txs: tuple[bytes, ...]) -> JudgedOutcome:
        """What a block does on top of the newest state; the last one asked is remembered."""
        if self._is_past_halt(block.height):
            raise HaltReached(
                f"block {block.height} is another program's, this one halts after {self._halt_height}"
            )
        if block.height != self._store.version + 1:
            raise NotOurChain(f"block {block.height} does not follow the state of {self._store.version}")
        tried = self._tried
        if tried is None or tried.block != block or tried.txs != txs:
            outcome = self._application.finalize_block(block, txs)
            tried = self._tried = _Tried(block, txs, outcome)
        return tried.outcome


def _misbehaviour(offence: Offence) -> Misbehaviour:
    return Misbehaviour(
        kind=MisbehaviourKind(offence.kind),
        validator=offence.address,
        power=offence.power,
        height=offence.height,
        time_ms=offence.time.to_ms(),
        total_power=offence.total_power,
    )
