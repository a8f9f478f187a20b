"""FinalizeBlock of a thousand transfers over a tree of many accounts, in hashes: how many, and what each takes.

The limit is SHA-256 itself, called bare on the 80 bytes that an inner node of the tree is hashed from. Signatures were
verified by CheckTx, as they are when a block comes from the mempool.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path

from benchmarks.runner import Result, interleaved_medians
from benchmarks.transfers import numbered_signers, signed_transfer
from dllm_protocol import jmt
from dllm_protocol.address import address_of
from dllm_protocol.genesis import Genesis, GenesisAccount, chain_id_of
from full_node.founding import Founding, found_chain, own_validator
from full_node.state import page
from full_node.state.store import Store
from full_node.state_machine.application import Application, BlockOutcome
from full_node.state_machine.context import BlockContext

ACCOUNTS = 100_000
TRANSFERS = 1_000
ROUNDS = 7
BARE_HASHES = 20_000
INNER_NODE_BYTES = 80
"""Prefix of 16 bytes and two children of 32."""
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Stand:
    """A chain in memory and on disk, and one block for it."""

    store: Store
    application: Application
    block: BlockContext
    raws: list[bytes]

    def execute(self) -> BlockOutcome:
        """The transactions; every one must succeed."""
        outcome = self.application.finalize_block(self.block, self.raws)
        if any(result.code for result in outcome.results):
            raise RuntimeError("a transfer failed")
        return outcome

    def finalize(self) -> bytes:
        """What FinalizeBlock does: the transactions, then the tree; the new root."""
        return self.store.put(self.block.height, self.execute().changes)[0]


@contextmanager
def stand(folder: Path, accounts: int, transfers: int) -> Iterator[Stand]:
    """A state of so many accounts, and a block of so many transfers among them."""
    signers = numbered_signers(transfers)
    genesis = _genesis([address_of(one.public_key) for one in signers], accounts)
    chain_id = chain_id_of(genesis)
    store = Store(folder / "state.db", proof_window=1)
    try:
        application = Application(store)
        _, batch = store.put(0, dict(application.init_chain(genesis)))
        store.commit(batch, None, meta={}, validator_sets={})
        began_ns = genesis.genesis_time_ms * NS_PER_MS
        application.note_committed(0, began_ns)
        raws = [signed_transfer(chain_id, one, 0, signers[at - 1]) for at, one in enumerate(signers)]
        if any(application.check_tx(raw).code for raw in raws):
            raise RuntimeError("a transfer was refused")
        yield Stand(store, application, BlockContext(chain_id, 1, began_ns), raws)
    finally:
        store.close()


def _genesis(payers: list[bytes], accounts: int) -> Genesis:
    stake = own_validator(numbered_signers(1)[0].public_key, "", "local")
    idle = [b"idle" + number.to_bytes(16, "big") for number in range(accounts - len(payers))]
    given = [(address, 1_000_000_000) for address in (*payers, *idle)]
    found = found_chain(Founding("bench", "local", [stake], (), seats=1))
    merged = {one.address: one.balance_udllm for one in found.accounts}
    for address, amount_udllm in given:
        merged[address] = merged.get(address, 0) + amount_udllm
    listed = tuple(GenesisAccount(address, amount) for address, amount in sorted(merged.items()))
    return replace(found, accounts=listed)


class _Counting:
    """SHA-256 that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: bytes = b"") -> hashlib._Hash:
        self.calls += 1
        return hashlib.sha256(data)


def hashes_of(what: Stand) -> int:
    """How many times the tree hashes for this block; counted in a run of its own, which is not timed."""
    counting, modules = _Counting(), (jmt, page)
    kept = [vars(module)["sha256"] for module in modules]
    try:
        for module in modules:
            vars(module)["sha256"] = counting
        what.finalize()
    finally:
        for module, original in zip(modules, kept, strict=True):
            vars(module)["sha256"] = original
    return counting.calls


def block_results() -> Iterator[Result]:
    """The count, then microseconds a hash of the whole FinalizeBlock and of the tree alone."""
    with (
        tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder,
        stand(Path(folder), ACCOUNTS, TRANSFERS) as what,
    ):
        what.finalize()  # brings the pages into memory, where a running node has them
        count = hashes_of(what)
        changes = what.execute().changes
        # Each changed key: its place, its value and its leaf; then a path to the root that it shares with others.
        apart = log2(ACCOUNTS) - log2(len(changes))
        paths = len(changes) * (3 + apart + 1)
        yield Result.of("chain/block-hashes", count, "hashes", "paths of the changed keys", paths)
        whole_us, bare_us = interleaved_medians(lambda: _us(what.finalize) / count, _bare_us, rounds=ROUNDS)
        yield Result.of("chain/finalize-block", whole_us, "µs/hash", "bare SHA-256 of 80 bytes", bare_us)
        tree_us, bare_us = interleaved_medians(
            lambda: _us(lambda: what.store.put(1, changes)) / count, _bare_us, rounds=ROUNDS
        )
        yield Result.of("chain/tree", tree_us, "µs/hash", "bare SHA-256 of 80 bytes", bare_us)


def _us(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e6


def _bare_us() -> float:
    data, sha256 = bytes(INNER_NODE_BYTES), hashlib.sha256
    started = time.perf_counter()
    for _ in range(BARE_HASHES):
        sha256(data).digest()
    return (time.perf_counter() - started) / BARE_HASHES * 1e6
