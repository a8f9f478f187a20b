"""The door of the state machine: CheckTx, FinalizeBlock, queries. It only orchestrates.

An engine calls `init_chain` once, stores what it returns and says so with `note_committed`; then, for each block,
`finalize_block`, stores the changes, `note_committed`. After a restart it says `note_committed` with the last
block before anything else. Nothing here writes: what changed is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dllm_protocol import state_keys
from dllm_protocol.errors import TransactionRefused
from dllm_protocol.genesis import Genesis
from dllm_protocol.results import Event, ExecTxResult
from dllm_protocol.transaction import transaction_hash
from full_node.state_machine.actions import run_actions
from full_node.state_machine.admission import (
    Arrival,
    Decoder,
    charge_fee,
    check_against_chain,
    weight,
)
from full_node.state_machine.books import view as books
from full_node.state_machine.books.freeze import freeze_books
from full_node.state_machine.context import (
    ActionContext,
    BlockContext,
    NoChain,
    Scope,
    chain_of,
    make_event,
    scope_of,
)
from full_node.state_machine.genesis import genesis_state
from full_node.state_machine.staking.punishment import punish
from full_node.state_machine.staking.seats import ValidatorUpdate, assign_seats
from full_node.state_machine.state import Overlay, StateReader
from full_node.state_machine.upgrades.plan import Release, app_version_of, apply_upgrade
from full_node.state_machine.upgrades.released import RELEASE
from full_node.state_machine.waiting import Waiting

CODESPACE = "dllm"
ACCEPTED_MAX = 1 << 16
"""Transactions that CheckTx remembers to have accepted since the newest block."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a transaction may wait for a block."""

    code: int
    """0 = yes; else the refusal's number. `refusals.SequenceGap` may be held for its predecessor."""
    log: str = ""
    codespace: str = ""
    priority: int = 0
    """Fee in udllm per thousand of weight."""
    sender: bytes = b""
    """Empty where the bytes are not a transaction."""
    sequence: int = 0
    gas_wanted: int = 0
    """Weight."""


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What a block did."""

    results: tuple[ExecTxResult, ...]
    changes: Mapping[bytes, bytes | None]
    """Ascending by key; None = removed. Only keys whose value differs from the one before."""
    events: tuple[Event, ...]
    """What happened before and after all transactions: misbehaviour punished, books frozen."""
    validator_updates: tuple[ValidatorUpdate, ...] = ()
    """Validators whose power changes, ascending by address."""
    unpaid: tuple[int, ...] = ()
    """Places of those that paid no fee and changed nothing; no honest proposer puts one into a block."""
    app_version: int | None = None
    """The rules from here on, where this block begins with an upgrade."""


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a transaction is worth to a proposer of the next block; fields as in `CheckResult`."""

    sender: bytes
    sequence: int
    priority: int
    weight: int


class Application:
    """The state machine over a store's newest version."""

    def __init__(self, reader: StateReader, release: Release = RELEASE) -> None:
        """`release` says which rules this program runs."""
        self._reader = reader
        self._release = release
        self._decoder = Decoder()
        self._waiting = Waiting(Overlay(reader))
        self._check_scope: Scope | None = None
        self._accepted: dict[bytes, CheckResult] = {}

    @property
    def app_version(self) -> int:
        """The rules that made the newest state: what the next header says."""
        if self._reader.get(state_keys.CHAIN) is None:
            return self._release.app_version
        return app_version_of(self._reader)

    def init_chain(self, genesis: Genesis) -> dict[bytes, bytes]:
        """The records of the first state. Raises GenesisRefused."""
        return genesis_state(genesis, self._release.app_version)

    def note_committed(self, height: int, time_ns: int) -> None:
        """The reader now shows the state after this block; checks start anew from it.

        Raises:
            NoChain: the reader shows no chain.
            WrongProgram: the next block needs other rules than this program runs.
        """
        newest = Overlay(self._reader)
        self._waiting = Waiting(newest)
        self._accepted.clear()
        chain_id = chain_of(newest).chain_id
        version = app_version_of(self._reader)
        self._release.require_fit(chain_id, height, version)
        if (upgrade := self._release.due(chain_id, height + 1, version)) is not None:
            apply_upgrade(newest, upgrade)  # what waits is judged by the rules of the next block
        self._check_scope = scope_of(newest, BlockContext(chain_id, height + 1, time_ns))

    def check_tx(self, raw: bytes, *, keep: bool = True) -> CheckResult:
        """Whether a transaction may wait for the next block, judged after those of its account that wait already.

        Its actions run too, at the last block's time, so that what is doomed is refused early. Until the next block
        the same bytes get the same yes: engines also ask on behalf of callers who hand nothing in, and whoever
        asked about a transaction, perhaps another's, must not be in its way when it comes. For the same reason what
        other accounts wait with is left out: see `waiting`.

        Args:
            keep: whether it waits from now on, where it may; False for an engine that knows that it is only asked.

        Raises:
            NoChain: before the first `note_committed`.
        """
        scope = self._check_scope
        if scope is None:
            raise NoChain("no block was noted as committed yet")
        name = transaction_hash(raw)
        if (known := self._accepted.get(name)) is not None:
            return known
        try:
            arrival = self._decoder.decode(raw)
        except TransactionRefused as refusal:
            return CheckResult(refusal.abci_code, refusal.message, CODESPACE)
        body = arrival.transaction.body
        code, log, codespace, kept = 0, "", "", False
        try:
            trial, wanted = self._try(raw, arrival, scope)
            kept = keep and self._waiting.keep(body.account, trial)
        except TransactionRefused as refusal:
            code, log, codespace = refusal.abci_code, refusal.message, CODESPACE
            wanted = weight(arrival, self._waiting.newest, scope)
        priority = _priority(body.fee_udllm, wanted)
        result = CheckResult(code, log, codespace, priority, body.account, body.sequence, wanted)
        if kept and len(self._accepted) < ACCEPTED_MAX:
            self._accepted[name] = result
        return result

    def appraise(self, raw: bytes) -> Appraisal | None:
        """What the bytes are worth to a proposer; None where they are no transaction. It depends on the newest block
        alone, not on what waits.

        Raises:
            NoChain: before the first `note_committed`.
        """
        scope = self._check_scope
        if scope is None:
            raise NoChain("no block was noted as committed yet")
        try:
            arrival = self._decoder.decode(raw)
        except TransactionRefused:
            return None
        body = arrival.transaction.body
        weighed = weight(arrival, self._waiting.newest, scope)
        return Appraisal(body.account, body.sequence, _priority(body.fee_udllm, weighed), weighed)

    def finalize_block(self, block: BlockContext, raws: Sequence[bytes]) -> BlockOutcome:
        """Upgrade the state where that is due, punish what the block proves, then execute its transactions in
        order; all over the newest state.

        Raises:
            NoChain: the reader shows no chain.
        """
        state = Overlay(self._reader)
        upgrade = self._release.due(block.chain_id, block.height, app_version_of(state))
        if upgrade is not None:
            apply_upgrade(state, upgrade)
        scope = scope_of(state, block)
        punished = punish(state, scope)
        unpaid: list[int] = []
        results = tuple(self._deliver(raw, state, scope, unpaid, place) for place, raw in enumerate(raws))
        frozen = freeze_books(state, scope) if raws else ()
        updates = assign_seats(state, scope.params)
        return BlockOutcome(
            results,
            self._net(state),
            (*punished, *frozen),
            updates,
            tuple(unpaid),
            app_version=upgrade.app_version if upgrade is not None else None,
        )

    def query(self, path: str, data: bytes) -> bytes | None:
        """Unproved lists whose hash is proved, as of the newest block; None = not there.

        Args:
            path: ``/offers``: the canonical bytes of a model's newest `OfferBook`.
            data: the model's name.
        """
        if path != "/offers":
            return None
        try:
            name = data.decode("ascii")
        except UnicodeDecodeError:
            return None  # no model is called so
        head = books.head(self._reader, name)
        return None if head is None else books.book_bytes(self._reader, name, head.epoch)

    def _try(self, raw: bytes, arrival: Arrival, scope: Scope) -> tuple[Overlay, int]:
        """Run a transaction after those of its account that wait: what it changes, and its weight. Raises
        TransactionRefused.
        """
        account = arrival.transaction.body.account
        wanted = check_against_chain(self._decoder, raw, arrival, self._waiting.state_of(account), scope)
        trial = self._waiting.trial(account)
        charge_fee(arrival, trial)
        run_actions(_context(arrival, trial, scope, silent=True), arrival.transaction.body.actions)
        return trial, wanted

    def _deliver(
        self, raw: bytes, state: Overlay, scope: Scope, unpaid: list[int], place: int
    ) -> ExecTxResult:
        """Execute one transaction of a block: refused it changes nothing (its place is added to `unpaid`), failed
        it keeps fee and sequence.
        """
        try:
            arrival = self._decoder.decode(raw)
            used = check_against_chain(self._decoder, raw, arrival, state, scope)
            charge_fee(arrival, state)
        except TransactionRefused as refusal:
            unpaid.append(place)
            return _refused(refusal)
        body = arrival.transaction.body
        fee_event = make_event("fee", account=body.account, sequence=body.sequence, fee_udllm=body.fee_udllm)
        trial = Overlay(state)
        ctx = _context(arrival, trial, scope)
        try:
            run_actions(ctx, body.actions)
        except TransactionRefused as refusal:
            return _refused(refusal, gas=used, events=(fee_event,))
        trial.merge()
        return ExecTxResult(
            data=b"".join(ctx.data), gas_wanted=used, gas_used=used, events=(fee_event, *ctx.events)
        )

    def _net(self, state: Overlay) -> dict[bytes, bytes | None]:
        """The changes that make a difference, ascending by key."""
        return {
            key: value for key, value in sorted(state.changes().items()) if self._reader.get(key) != value
        }


def _context(arrival: Arrival, state: Overlay, scope: Scope, *, silent: bool = False) -> ActionContext:
    account = arrival.transaction.body.account
    return ActionContext(scope, state, account, arrival.by_chat_key, silent=silent)


def _priority(fee_udllm: int, weighed: int) -> int:
    """Fee in udllm per thousand of weight."""
    return fee_udllm * 1000 // max(1, weighed)


def _refused(refusal: TransactionRefused, *, gas: int = 0, events: tuple[Event, ...] = ()) -> ExecTxResult:
    return ExecTxResult(
        code=refusal.abci_code,
        log=refusal.message,
        gas_wanted=gas,
        gas_used=gas,
        events=events,
        codespace=CODESPACE,
    )
