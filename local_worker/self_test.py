"""A chunk proves itself: its model's probe goes through it, and what leaves must be what the packer's machine gave.

It is run when an engine has loaded, before anything is offered, and again every few minutes while nobody waits for an
answer: cards go bad while they serve.

    tester = SelfTester(probe, engine=host.current, is_idle=…, make_room=…)
    await tester.test(engine)      or SelfTestFailed
    await tester.keep()            never returns, but SelfTestFailed
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.model_package.probe import PROBE_ROWS, probe_tokens
from dllm_protocol.probing.closeness import (
    DENSE,
    DENSE_LOGITS,
    ROUTED,
    ROUTED_LOGITS,
    Comparison,
    RowDifference,
    compare_hidden,
    compare_logits,
)
from local_worker.engine.errors import DecodeCancelled, DecodeFailed, EngineBusy, EngineFull, EngineGone
from local_worker.engine.interface import ServingEngine
from local_worker.engine.messages import MAX_TOP_K, Hidden, RowOutput
from local_worker.packages.probe_piece import Probe

_log = logging.getLogger(__name__)

EVERY_S: Final = 240.0
"""Between two self-tests of a worker that nobody asks anything."""
LATEST_S: Final = 1800.0
"""Longest without one, however busy the worker is: the probe's rows then go with the others'."""
LOOK_S: Final = 5.0
"""Between two looks whether it is idle, once a self-test is due."""


class SelfTestFailed(VerificationFailed):
    """What leaves a chunk is not what its model's probe says; it must not serve."""

    code = "E_SELF_TEST"


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """A self-test that was passed."""

    is_exact: bool
    """Whether every bit is as the packer's machine gave it; machines with other arithmetic are near it."""
    worst: RowDifference
    """The row that differs most."""

    def in_words(self) -> str:
        """As the status shows it."""
        return "exact" if self.is_exact else f"within {self.worst.error:.1g}"


async def self_test(engine: ServingEngine, probe: Probe) -> SelfTestResult:
    """Send the probe's rows through an engine, in a sequence of their own, and compare what leaves.

    Raises:
        SelfTestFailed: naming the first row that is not what it should be, at which boundary, by how much.
        EngineFull, EngineBusy, EngineGone, DecodeFailed: there was no answer.
    """
    info = engine.info
    held = (info.first_layer, info.end_layer, info.model_layers)
    if held != (probe.first, probe.end, probe.layers):
        raise SelfTestFailed(
            f"the engine holds layers {held[0]}:{held[1]} of {held[2]}, "
            f"the probe is for {probe.first}:{probe.end} of {probe.layers}"
        )
    width = next((rows.shape[1] for rows in (probe.entering, probe.leaving) if rows is not None), info.n_embd)
    if width != info.n_embd:
        raise SelfTestFailed(f"the engine's hidden states have {info.n_embd} numbers, the probe's {width}")
    compared = _compared(probe, *await _answer(engine, probe))
    if probe.leaving is None:
        tolerance = ROUTED_LOGITS if probe.is_routed else DENSE_LOGITS
    else:
        tolerance = ROUTED if probe.is_routed else DENSE
    beyond = compared.first_beyond(tolerance)
    if beyond is not None:
        what = "the logits are" if probe.leaving is None else f"what leaves block {probe.end - 1} is"
        raise SelfTestFailed(
            f"layers {probe.first}:{probe.end} do not compute what their model's probe says: "
            f"{what} wrong, {beyond.in_words()}; other machines' roundings make errors "
            f"of at most {tolerance.typical:.2g} in half of the rows and {tolerance.worst:.2g} in any",
            hint="fetch the pieces again; if that does not help, the machine or its driver computes wrongly",
        )
    return SelfTestResult(compared.is_exact, compared.worst)


async def _answer(engine: ServingEngine, probe: Probe) -> tuple[Hidden | None, list[RowOutput]]:
    """What leaves: hidden states, or the logits of every row."""
    tokens = probe_tokens(engine.info.vocab_size) if probe.entering is None else []
    top_k = min(MAX_TOP_K, engine.info.vocab_size)
    sequence = engine.open_sequence()
    try:
        if probe.leaving is not None:
            if probe.entering is None:
                return await sequence.enter(0, tokens), []
            return await sequence.pass_on(0, probe.entering), []
        if probe.entering is None:
            return None, await sequence.decode(0, tokens, top_k=top_k, outputs="all")
        return None, await sequence.leave(0, probe.entering, top_k=top_k, outputs="all")
    finally:
        sequence.close()


def _compared(probe: Probe, hidden: Hidden | None, rows: list[RowOutput]) -> Comparison:
    if probe.leaving is None:
        return compare_logits(probe.logits, [(row.ids.tolist(), row.logits.tolist()) for row in rows])
    if hidden is None or hidden.shape != probe.leaving.shape:
        raise SelfTestFailed(f"{PROBE_ROWS} rows went in, {0 if hidden is None else len(hidden)} came out")
    entered = None if probe.entering is None else probe.entering.astype("<f4").tobytes()
    wanted, came = (rows.astype("<f4").tobytes() for rows in (probe.leaving, hidden))
    return compare_hidden(wanted, came, entered, probe.leaving.shape[1])


class SelfTester:
    """A worker's self-tests, from the first engine to the last; without a probe there is nothing to test.

    Attributes:
        passed: how many were passed.
        last: the last one that was passed.
    """

    def __init__(
        self,
        probe: Probe | None,
        *,
        engine: Callable[[], ServingEngine],
        is_idle: Callable[[], bool],
        make_room: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            engine: the one that runs now; may raise `EngineGone`.
            is_idle: whether nobody waits for an answer.
            make_room: called when a self-test is overdue: frees a sequence if all are held; may raise `EngineBusy`.
        """
        self._probe = probe
        self._engine = engine
        self._is_idle = is_idle
        self._make_room = make_room
        self._sleep = sleep
        self.passed = 0
        self.last: SelfTestResult | None = None

    @property
    def has_probe(self) -> bool:
        """Whether there is anything to test."""
        return self._probe is not None

    async def test(self, engine: ServingEngine) -> None:
        """Test an engine that has just loaded.

        Raises:
            As `self_test`.
        """
        if self._probe is not None:
            self.last = await self_test(engine, self._probe)
            self.passed += 1

    async def keep(self) -> None:
        """Test again and again, for ever.

        Raises:
            SelfTestFailed: what this worker computes is not to be offered any more.
        """
        since_s = 0.0
        while self._probe is not None:
            await self._sleep(EVERY_S)
            since_s += EVERY_S
            while not self._is_idle() and since_s < LATEST_S:
                await self._sleep(LOOK_S)
                since_s += LOOK_S
            try:
                engine = self._engine()
                if since_s >= LATEST_S:
                    self._make_room()
                await self.test(engine)
                since_s = 0.0
            except (EngineGone, EngineFull, EngineBusy, DecodeFailed, DecodeCancelled) as error:
                # The next engine is tested when it has loaded; where all sequences are held there is a next time.
                _log.info("a self-test was left out: %s", error.message)

    def in_words(self) -> str:
        """As the status shows it; empty before the first."""
        if self._probe is None:
            return "no probe"
        return self.last.in_words() if self.last is not None else ""
