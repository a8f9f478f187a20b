"""Proofs as the state grows: bytes and verification time at 10³, 10⁵ and 10⁶ accounts, and what a light node keeps.

A path has about log₂ n steps, so sizes and times at n accounts are shown against those at 1,000, scaled by the ratio of
the logarithms: a ratio of at most 1 is growth with log n. The memory of a light node is that of a process of its own,
which verifies one header after the other; the chain it is fed is made as it goes and forgotten again.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log2
from pathlib import Path

from benchmarks.runner import Result
from dllm_protocol import state_keys
from dllm_protocol.ics23 import verify_membership, verify_non_membership
from dllm_protocol.records import Account
from full_node.state.store import Store

NAME = "proofs"
SIZES = (1_000, 100_000, 1_000_000)
ACCOUNTS_A_VERSION = 250_000
SAMPLES = 500
SEED = 20_261
HEADERS = 100_000
HEADERS_BEFORE = 10_000


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over the samples."""

    presence_bytes: float
    absence_bytes: float
    presence_us: float
    absence_us: float


def run() -> Iterator[Result]:
    """Sizes and times for each number of accounts, then memory."""
    smallest = measure(SIZES[0])
    for size in SIZES:
        found = smallest if size == SIZES[0] else measure(size)
        growth = log2(size) / log2(SIZES[0])
        for name, unit in (
            ("presence_bytes", "bytes"),
            ("absence_bytes", "bytes"),
            ("presence_us", "µs"),
            ("absence_us", "µs"),
        ):
            row = f"{NAME}/{name.partition('_')[0]}-{'size' if unit == 'bytes' else 'time'}/{size}"
            expected = getattr(smallest, name) * growth
            yield Result.of(row, getattr(found, name), unit, "10³ accounts, times log n", expected)
    before_kb, after_kb = _memory_kb()
    yield Result.of(
        f"{NAME}/light-memory", after_kb, "kB", f"after {HEADERS_BEFORE} of {HEADERS} headers", before_kb
    )


def measure(accounts: int) -> Measured:
    """Builds a state of so many accounts and proves a sample of them, and as many that are absent."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder:
        store = Store(Path(folder) / "state.db", proof_window=1)
        try:
            _fill(store, accounts)
            present = [_key(number) for number in rng.sample(range(accounts), SAMPLES)]
            absent = [_key(accounts + number) for number in range(SAMPLES)]
            proofs = {key: store.prove(key, store.version) for key in (*present, *absent)}
            root = store.root
        finally:
            store.close()
    presence_us = [_us(verify_membership, proofs[key].proof, root, key, proofs[key].value) for key in present]
    absence_us = [_us(verify_non_membership, proofs[key].proof, root, key) for key in absent]
    return Measured(
        statistics.fmean(len(proofs[key].proof) for key in present),
        statistics.fmean(len(proofs[key].proof) for key in absent),
        statistics.median(presence_us),
        statistics.median(absence_us),
    )


def _key(number: int) -> bytes:
    return state_keys.account(number.to_bytes(20, "big"))


def _fill(store: Store, accounts: int) -> None:
    for first in range(0, accounts, ACCOUNTS_A_VERSION):
        numbers = range(first, min(accounts, first + ACCOUNTS_A_VERSION))
        changes: Mapping[bytes, bytes | None] = {
            _key(number): Account(balance_udllm=1_000_000 + number, sequence=1).encode() for number in numbers
        }
        _, batch = store.put(store.version + 1, changes)
        store.commit(batch, None, meta={}, validator_sets={})


def _us(check: object, *arguments: object) -> float:
    assert callable(check)
    started = time.perf_counter()
    check(*arguments)
    return (time.perf_counter() - started) * 1e6


def _memory_kb() -> tuple[float, float]:
    """Resident memory of a light node after some headers, and after many more."""
    command = [sys.executable, "-m", "benchmarks.light_memory", str(HEADERS_BEFORE), str(HEADERS)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), float(said[1])
