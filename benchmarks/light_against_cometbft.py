"""Our light client beside CometBFT's own: the same syncs of the same chain from the same node, in turn.

Both are processes with a primary, a witness and a store on disk, and both start with nothing but a trust root. What
interpreters and programs need before they do anything is measured beside it and shown in a row of its own: Python loads
modules for longer than either client takes to sync.

- ``sync``: from the root at height 1 to the tip of a 20,000-block chain, in a program that is loaded. `cometbft light`
  has no such moment, so what `cometbft version` takes is taken off.
- ``following``: 100 further targets, one after the other, in a running client.
- ``walk``: 500 headers back by the hash chain from a root at the tip, in a running client.
- ``cold``: from the start of the process to the verified tip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.chain_server import ShownChain, chain_server
from benchmarks.light_process import OurLight
from benchmarks.runner import Result, interleaved_medians
from full_node.consensus.cometbft.binary import CometBftMissing, find_cometbft
from tools.conformance.comet_light import CometLight, LightTarget

NAME = "light-against-cometbft"
HEIGHTS = 20_000
VALIDATORS = 4
ROUNDS = 9
TARGETS = 100
WALKED = 500
PEER = "`cometbft light`"


class _Contest:
    """Both clients before one node; every start has a store of its own."""

    def __init__(self, folder: Path, chain: ShownChain, cometbft: Path) -> None:
        self._folder = folder
        self._chain = chain
        self._cometbft = cometbft
        self._starts = 0

    def _home(self) -> Path:
        self._starts += 1
        return self._folder / f"light-{self._starts}"

    def _root(self, *, at_tip: bool) -> tuple[int, str]:
        chain = self._chain
        return (chain.height, chain.tip_hash) if at_tip else (1, chain.root_hash)

    def ours(self, *, at_tip: bool = False) -> OurLight:
        """Our client, loaded; it has asked nothing yet."""
        return OurLight(self._home(), self._chain.chain_id, self._chain.address, *self._root(at_tip=at_tip))

    def theirs(self, *, at_tip: bool = False) -> CometLight:
        """CometBFT's, which has verified its root when it serves."""
        node = f"http://{self._chain.address}"
        target = LightTarget(self._chain.chain_id, node, [node], *self._root(at_tip=at_tip))
        return CometLight(self._cometbft, self._home(), target)

    def to_the_tip(self, client: OurLight | CometLight) -> None:
        """Have the tip verified."""
        if (found := client.header_hash(self._chain.height)) != self._chain.tip_hash:
            raise RuntimeError(f"tip {self._chain.tip_hash} was verified as {found}")

    def our_sync_s(self) -> float:
        """Root to tip in a loaded program."""
        with self.ours() as client:
            return _seconds(lambda: self.to_the_tip(client))

    def our_cold_s(self) -> float:
        """Process start to verified tip."""
        started = time.perf_counter()
        with self.ours() as client:
            self.to_the_tip(client)
            return time.perf_counter() - started

    def their_cold_s(self) -> float:
        """Process start to verified tip."""
        started = time.perf_counter()
        with self.theirs() as client:
            self.to_the_tip(client)
            return time.perf_counter() - started

    def their_sync_s(self) -> float:
        """The same without what the program needs to start at all."""
        bare_s = _seconds(
            lambda: subprocess.run([self._cometbft, "version"], check=True, stdout=subprocess.DEVNULL)
        )
        return self.their_cold_s() - bare_s

    def following_s(self, client: OurLight | CometLight) -> float:
        """Further and further targets."""
        client.header_hash(2)
        step = self._chain.height // (2 * TARGETS)
        return _seconds(lambda: [client.header_hash(number * step) for number in range(1, TARGETS + 1)])

    def walk_s(self, client: OurLight | CometLight) -> float:
        """Back by the hash chain."""
        client.header_hash(self._chain.height)
        return _seconds(lambda: client.header_hash(self._chain.height - WALKED))

    def with_ours(self, measure: Callable[[OurLight], float], *, at_tip: bool = False) -> float:
        """A measurement in a fresh client of ours."""
        with self.ours(at_tip=at_tip) as client:
            return measure(client)

    def with_theirs(self, measure: Callable[[CometLight], float], *, at_tip: bool = False) -> float:
        """The same in theirs."""
        with self.theirs(at_tip=at_tip) as client:
            return measure(client)


def run() -> Iterator[Result]:
    """Our time ÷ theirs; nothing where `cometbft` is not installed."""
    try:
        cometbft = find_cometbft()
    except CometBftMissing as missing:
        print(f"{NAME}: {missing.message}; {missing.hint}", file=sys.stderr)
        return
    with (
        tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder,
        chain_server(Path(folder), HEIGHTS, VALIDATORS) as chain,
    ):
        contest = _Contest(Path(folder), chain, cometbft)
        pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
            "sync": (contest.our_sync_s, contest.their_sync_s),
            "following": (
                lambda: contest.with_ours(contest.following_s),
                lambda: contest.with_theirs(contest.following_s),
            ),
            "walk": (
                lambda: contest.with_ours(contest.walk_s, at_tip=True),
                lambda: contest.with_theirs(contest.walk_s, at_tip=True),
            ),
            "cold": (contest.our_cold_s, contest.their_cold_s),
        }
        for name, (ours, theirs) in pairs.items():
            our_s, their_s = interleaved_medians(ours, theirs, rounds=ROUNDS)
            yield Result.of(f"{NAME}/{name}", our_s, "s", PEER, their_s)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
