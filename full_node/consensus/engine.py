"""What engines and applications promise each other, and what every engine shows to the RPC.

The application is the deterministic state machine; the engine orders transactions and gives blocks. The
shapes follow ABCI 2.0, so that the same application also stands behind another engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dllm_protocol.block import Block
from dllm_protocol.commit import BlockID, Commit
from dllm_protocol.consensus_params import ConsensusParams
from dllm_protocol.errors import DllmError
from dllm_protocol.genesis import Genesis
from dllm_protocol.results import Event, ExecTxResult
from dllm_protocol.validator_set import ValidatorSet
from full_node.consensus.events import EventBus
from full_node.state.store import Store
from full_node.state_machine.context import BlockContext
from full_node.state_machine.staking.seats import ValidatorUpdate


class EngineStopped(DllmError):
    """The engine is not running (any more), so nothing can be ordered."""

    code = "E_ENGINE"
    exit_code = 3


class CheckResult(Protocol):
    """What CheckTx said of a transaction."""

    @property
    def code(self) -> int: ...
    @property
    def log(self) -> str: ...
    @property
    def codespace(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def sender(self) -> bytes: ...
    @property
    def sequence(self) -> int: ...
    @property
    def gas_wanted(self) -> int: ...


class BlockOutcome(Protocol):
    """What a block did: one result a transaction, in order; state changes (None deletes); what happened at
    its end.
    """

    @property
    def results(self) -> Sequence[ExecTxResult]: ...
    @property
    def changes(self) -> Mapping[bytes, bytes | None]: ...
    @property
    def events(self) -> Sequence[Event]: ...
    @property
    def validator_updates(self) -> Sequence[ValidatorUpdate]: ...
    @property
    def app_version(self) -> int | None:
        """The rules from the next header on, where this block began with an upgrade."""
        ...


class Application(Protocol):
    """The state machine's door; called by one thread."""

    @property
    def app_version(self) -> int:
        """The rules that made the newest state: what the next header says."""
        ...

    def init_chain(self, genesis: Genesis) -> Mapping[bytes, bytes]:
        """The first state."""
        ...

    def check_tx(self, raw: bytes, *, keep: bool = True) -> CheckResult:
        """Whether a transaction could stand in the next block, after those of its account that were kept before it.

        Args:
            keep: whether it waits from now on, where it may.
        """
        ...

    def finalize_block(self, block: BlockContext, raws: Sequence[bytes]) -> BlockOutcome:
        """Computes a block on top of the newest committed state; changes nothing."""
        ...

    def note_committed(self, height: int, time_ns: int) -> None:
        """The store's newest block is this one; checks start afresh from there. Said once more after a
        restart.
        """
        ...

    def query(self, path: str, data: bytes) -> bytes | None:
        """A list that no single key holds; None when there is none or the path is not served."""
        ...


class Appraisal(Protocol):
    """What a transaction is worth to a proposer of the next block: its sender, its turn among the sender's, fee per
    weight, weight. The newest block decides it, so that every validator finds the same.
    """

    @property
    def sender(self) -> bytes: ...
    @property
    def sequence(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def weight(self) -> int: ...


class JudgedOutcome(BlockOutcome, Protocol):
    """What a block would do, and what speaks against it."""

    @property
    def unpaid(self) -> Sequence[int]:
        """Places of transactions that paid no fee and changed nothing."""
        ...


class ProposingApplication(Protocol):
    """The state machine's door for engines whose blocks others propose and judge; see `Application`."""

    @property
    def app_version(self) -> int: ...
    def init_chain(self, genesis: Genesis) -> Mapping[bytes, bytes]: ...
    def check_tx(self, raw: bytes, *, keep: bool = True) -> CheckResult: ...
    def finalize_block(self, block: BlockContext, raws: Sequence[bytes]) -> JudgedOutcome: ...
    def note_committed(self, height: int, time_ns: int) -> None: ...
    def query(self, path: str, data: bytes) -> bytes | None: ...

    def appraise(self, raw: bytes) -> Appraisal | None:
        """What the bytes are worth to a proposer; None where they are no transaction."""
        ...


@dataclass(frozen=True, slots=True)
class CommittedBlock:
    """One block that is in the store."""

    block: Block
    block_id: BlockID
    seen_commit: Commit
    results: Sequence[ExecTxResult]
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a transaction that was handed in.

    Attributes:
        hash: sha256 of its bytes.
        code: 0 when it waits for a block, else the refusal's number.
        log: words to that.
        codespace: whose number it is.
    """

    hash: bytes
    code: int
    log: str = ""
    codespace: str = ""


@dataclass(frozen=True, slots=True)
class MempoolView:
    """The transactions that wait for a block, oldest first, some of them."""

    txs: Sequence[bytes]
    count: int
    total_bytes: int


class Engine(Protocol):
    """What the RPC needs of an engine."""

    @property
    def chain_id(self) -> str: ...
    @property
    def genesis(self) -> Genesis: ...
    @property
    def store(self) -> Store: ...
    @property
    def events(self) -> EventBus: ...
    @property
    def params(self) -> ConsensusParams: ...
    @property
    def validators(self) -> ValidatorSet:
        """The set that signs the next block."""
        ...

    @property
    def public_key(self) -> bytes:
        """This node's validator key."""
        ...

    async def submit(self, raw: bytes) -> Submission:
        """Hands a transaction in; returns when CheckTx has decided. Raises MempoolRefused, EngineStopped."""
        ...

    async def check(self, raw: bytes) -> Submission:
        """What CheckTx says, without handing the transaction in."""
        ...

    async def pending(self, limit: int) -> MempoolView:
        """A look at the mempool."""
        ...

    async def query(self, path: str, data: bytes) -> bytes | None:
        """Asks the application for a list."""
        ...
