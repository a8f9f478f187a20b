"""The node's counters, and a state machine that is watched from outside: the state machine itself reads no clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dllm_protocol.exposition import Histogram, LabelledCounter
from dllm_protocol.genesis import Genesis
from full_node.consensus.engine import Appraisal, CheckResult, JudgedOutcome, ProposingApplication
from full_node.state_machine.application import Application
from full_node.state_machine.context import BlockContext

CHECK_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
FINALIZE_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass
class NodeCounts:
    """Everything that is counted while a node runs; read by the metrics' edge, possibly from another thread."""

    txs_accepted: int = 0
    txs_refused: int = 0
    blocks: int = 0
    block_txs: int = 0
    height: int = 0
    block_time_s: float = 0.0
    """Block time of the newest block, in seconds since 1970."""
    check_s: Histogram = field(default_factory=lambda: Histogram(CHECK_BOUNDS_S))
    finalize_s: Histogram = field(default_factory=lambda: Histogram(FINALIZE_BOUNDS_S))
    rpc_requests: LabelledCounter = field(default_factory=lambda: LabelledCounter("method", "outcome"))


class WatchedApplication:
    """A state machine whose answers are counted and timed."""

    def __init__(
        self,
        inner: ProposingApplication,
        counts: NodeCounts,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._inner = inner
        self._counts = counts
        self._clock_s = clock_s
        self._txs_decided: int | None = None

    @property
    def app_version(self) -> int:
        """As the state machine says."""
        return self._inner.app_version

    def init_chain(self, genesis: Genesis) -> Mapping[bytes, bytes]:
        """As the state machine does."""
        return self._inner.init_chain(genesis)

    def check_tx(self, raw: bytes, *, keep: bool = True) -> CheckResult:
        """As the state machine does; timed, and counted by its verdict."""
        began_s = self._clock_s()
        result = self._inner.check_tx(raw, keep=keep)
        self._counts.check_s.observe(self._clock_s() - began_s)
        if result.code == 0:
            self._counts.txs_accepted += 1
        else:
            self._counts.txs_refused += 1
        return result

    def finalize_block(self, block: BlockContext, raws: Sequence[bytes]) -> JudgedOutcome:
        """As the state machine does; timed."""
        began_s = self._clock_s()
        outcome = self._inner.finalize_block(block, raws)
        self._counts.finalize_s.observe(self._clock_s() - began_s)
        self._txs_decided = len(raws)
        return outcome

    def note_committed(self, height: int, time_ns: int) -> None:
        """As the state machine does; counts the block, but not the one that a restart says once more."""
        self._inner.note_committed(height, time_ns)
        if self._txs_decided is not None:
            self._counts.blocks += 1
            self._counts.block_txs += self._txs_decided
            self._txs_decided = None
        self._counts.height = height
        self._counts.block_time_s = time_ns / 1e9

    def query(self, path: str, data: bytes) -> bytes | None:
        """As the state machine does."""
        return self._inner.query(path, data)

    def appraise(self, raw: bytes) -> Appraisal | None:
        """As the state machine does."""
        return self._inner.appraise(raw)


def watched(application: Application, counts: NodeCounts, wanted: object | None) -> ProposingApplication:
    """The state machine, watched where somebody wants its numbers, as it is where nobody does."""
    return application if wanted is None else WatchedApplication(application, counts)
