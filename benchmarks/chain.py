"""Transactions finalised a second: on solo, on four CometBFT validators, and on CometBFT's own kvstore, in turn.

All are real processes on this one machine, under one load generator: the same number of transactions of the same size
over the same number of connections, each round timed until the block that has the last one stands at the first node.
kvstore runs inside CometBFT, checks no signature and keeps a plain map: it is what the engine can do where the
application costs nothing. What the CPU of each process says of where the rest goes is printed beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.block_hashes import block_results
from benchmarks.broadcasting import finalised_a_second
from benchmarks.kvstore_network import HEARTBEAT_MS, kvstore_network
from benchmarks.runner import Result
from benchmarks.transfers import numbered_signers, signed_transfer
from dllm_protocol.address import address_of
from dllm_protocol.genesis import GenesisAccount, chain_id_of
from dllm_protocol.signing import SeedSigner
from full_node.consensus.cometbft.binary import CometBftMissing, find_cometbft
from full_node.founding import Founding, found_chain, own_validator
from full_node.home import NodeHome, write_genesis
from full_node.keys import create_key
from tests.full_node.cometbft.network import HOST, Network
from tests.full_node.processes import NodeProcess

NAME = "chain"
VALIDATORS = 4
TRANSFERS_A_ROUND = 4_000
ROUNDS = 3
FUNDED_UDLLM = 1_000_000_000
PEER = "kvstore on 4 validators"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A network under load."""

    addresses: Sequence[str]
    """host:port of each node's RPC."""
    make_txs: Callable[[int], list[bytes]]
    """The transactions of a round."""
    processes: dict[str, list[int]]
    """Process ids by kind, for their CPU time."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one contestant did in one round."""

    tx_s: float
    """Transactions a second."""
    cpu_ms: dict[str, float]
    """CPU time a transaction by kind of process, all nodes together."""


def run() -> Iterator[Result]:
    """Both of our chains beside kvstore, then what a block costs in hashes."""
    signers = numbered_signers(TRANSFERS_A_ROUND)
    try:
        find_cometbft()
    except CometBftMissing as missing:
        print(f"{NAME}: {missing.message}; {missing.hint}", file=sys.stderr)
    else:
        with tempfile.TemporaryDirectory(prefix="dllm-bench-", ignore_cleanup_errors=True) as folder:
            yield from _contest(Path(folder), signers)
    yield from block_results()


def _contest(folder: Path, signers: Sequence[SeedSigner]) -> Iterator[Result]:
    with (
        solo_chain(folder, signers) as solo,
        cometbft_chain(folder, signers) as ours,
        kvstore(folder, len(ours.make_txs(0)[0])) as peer,
    ):
        rounds: dict[str, list[Round]] = {"solo": [], "cometbft": [], "kvstore": []}
        contestants = {"solo": solo, "cometbft": ours, "kvstore": peer}
        for number in range(1 + ROUNDS):
            for name, contestant in contestants.items():
                measured = _round(contestant, number)
                if number:  # the first fills caches
                    rounds[name].append(measured)
    peer_tx_s = _median(rounds["kvstore"], lambda one: one.tx_s)
    for name in ("solo", "cometbft"):
        yield Result.of(
            f"{NAME}/{name}", _median(rounds[name], lambda one: one.tx_s), "tx/s", PEER, peer_tx_s
        )
    peer_cpu_ms = _median(rounds["kvstore"], lambda one: sum(one.cpu_ms.values()))
    for name, kind in (("solo", "node"), ("cometbft", "application"), ("cometbft", "engine")):
        cpu_ms = statistics.median(one.cpu_ms[kind] for one in rounds[name])
        row = f"{NAME}/{name}-{kind}-cpu"
        yield Result.of(row, cpu_ms, "ms/tx", "all processes of kvstore", peer_cpu_ms)


def _median(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(value(one) for one in rounds)


def _round(contestant: Contestant, number: int) -> Round:
    txs = contestant.make_txs(number)
    before = {kind: _cpu_s(pids) for kind, pids in contestant.processes.items()}
    tx_s = asyncio.run(finalised_a_second(contestant.addresses, txs))
    cpu_ms = {
        kind: (_cpu_s(pids) - before[kind]) / len(txs) * 1000 for kind, pids in contestant.processes.items()
    }
    return Round(tx_s, cpu_ms)


def _cpu_s(pids: Sequence[int]) -> float:
    """CPU time of processes with all their threads, where the system tells it (Linux); else 0."""
    stats = [stat for pid in pids for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def _accounts(signers: Sequence[SeedSigner]) -> list[GenesisAccount]:
    return [GenesisAccount(address_of(one.public_key), FUNDED_UDLLM) for one in signers]


def _transfers(chain_id: str, signers: Sequence[SeedSigner]) -> Callable[[int], list[bytes]]:
    """Each account pays its neighbour once a round."""
    return lambda number: [
        signed_transfer(chain_id, one, number, signers[place - 1]) for place, one in enumerate(signers)
    ]


@contextmanager
def solo_chain(folder: Path, signers: Sequence[SeedSigner]) -> Iterator[Contestant]:
    """One node that orders by itself."""
    home = folder / "solo"
    home.mkdir(mode=0o700)
    stake = own_validator(create_key(NodeHome(home).key).public_key, "", "local")
    accounts = [(one.address, one.balance_udllm) for one in _accounts(signers)]
    genesis = found_chain(Founding("bench", "local", [stake], accounts, seats=1))
    genesis = replace(genesis, params=replace(genesis.params, heartbeat_ms=HEARTBEAT_MS))
    write_genesis(NodeHome(home), genesis)
    node = NodeProcess.start(home, "--lifeline")
    try:
        transfers = _transfers(chain_id_of(genesis), signers)
        yield Contestant([node.address], transfers, {"node": [node.process.pid]})
    finally:
        node.kill()


@contextmanager
def cometbft_chain(folder: Path, signers: Sequence[SeedSigner]) -> Iterator[Contestant]:
    """Four validators, each our application and its CometBFT."""
    with Network.start(
        folder,
        validators=VALIDATORS,
        params=lambda params: replace(params, heartbeat_ms=HEARTBEAT_MS),
        accounts=_accounts(signers),
    ) as network:
        yield Contestant(
            [f"{HOST}:{node.rpc_port}" for node in network.nodes],
            _transfers(network.chain_id, signers),
            {
                "application": [node.process.pid for node in network.nodes if node.process is not None],
                "engine": [pid for node in network.nodes for pid in node.engine_pids()],
            },
        )


@contextmanager
def kvstore(folder: Path, tx_bytes: int) -> Iterator[Contestant]:
    """Four validators of the built-in application; transactions as long as ours."""
    with kvstore_network(folder, VALIDATORS) as nodes:

        def pairs(number: int) -> list[bytes]:
            return [f"{number}.{place}=".encode().ljust(tx_bytes, b"v") for place in range(TRANSFERS_A_ROUND)]

        yield Contestant([node.address for node in nodes], pairs, {"engine": [node.pid for node in nodes]})
