"""A small application of accounts and notes, deterministic and real in all that engines rely on; and helpers
around it.

Transactions are `sender|sequence|key=value`; the fee is none. `key=` deletes, `key=!` fails inside the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dllm_protocol.genesis import GENESIS_VERSION, Genesis, GenesisAccount, GenesisValidator
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.refusals import MalformedTransaction, SequenceGap, WrongSequence
from dllm_protocol.results import Event, EventAttribute, ExecTxResult
from dllm_protocol.signing import SeedSigner
from full_node.consensus.sign_state import SignState
from full_node.consensus.solo import SoloEngine
from full_node.consensus.solo_chain import SoloChain
from full_node.state.store import Store
from full_node.state_machine.context import BlockContext
from full_node.state_machine.staking.seats import ValidatorUpdate

GENESIS_TIME_MS = 1_790_000_000_000
STAKER, STAKE_UDLLM = b"staker".ljust(20, b"."), 10_000_000


@dataclass(frozen=True, slots=True)
class Checked:
    """CheckTx's answer."""

    code: int
    sender: bytes = b""
    sequence: int = 0
    log: str = ""
    codespace: str = ""
    priority: int = 0
    gas_wanted: int = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """FinalizeBlock's answer."""

    results: list[ExecTxResult] = field(default_factory=list)
    changes: dict[bytes, bytes | None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    validator_updates: list[ValidatorUpdate] = field(default_factory=list)
    app_version: int | None = None


def note(sender: str, sequence: int, key: str, value: str) -> bytes:
    """A transaction."""
    return f"{sender}|{sequence}|{key}={value}".encode()


def _parse(raw: bytes) -> tuple[str, int, bytes, bytes] | None:
    sender, _, rest = raw.decode(errors="replace").partition("|")
    sequence, _, assignment = rest.partition("|")
    key, found, value = assignment.partition("=")
    if not (sender and sequence.isdigit() and key and found):
        return None
    return sender, int(sequence), key.encode(), value.encode()


class NotesApplication:
    """Accounts with sequences, and notes."""

    app_version = 0

    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        self._read = read
        self._ahead: dict[str, int] = {}
        self.updates: list[ValidatorUpdate] = []

    def _sequence(self, sender: str) -> int:
        return int(self._read(b"sequence/" + sender.encode()) or 0)

    def init_chain(self, genesis: Genesis) -> Mapping[bytes, bytes]:
        return {b"genesis": genesis.name.encode()}

    def check_tx(self, raw: bytes, *, keep: bool = True) -> Checked:
        parsed = _parse(raw)
        if parsed is None:
            return Checked(
                MalformedTransaction.abci_code, log="not sender|sequence|key=value", codespace="test"
            )
        sender, sequence, *_ = parsed
        expected = self._ahead.get(sender, self._sequence(sender))
        if sequence != expected:
            kind = SequenceGap if sequence > expected else WrongSequence
            return Checked(
                kind.abci_code, sender.encode(), sequence, f"sequence {sequence}, expected {expected}"
            )
        if keep:
            self._ahead[sender] = expected + 1
        return Checked(0, sender.encode(), sequence)

    def finalize_block(self, block: BlockContext, raws: Sequence[bytes]) -> Outcome:
        outcome = Outcome(validator_updates=list(self.updates))
        sequences: dict[str, int] = {}
        for raw in raws:
            parsed = _parse(raw)
            assert parsed is not None
            sender, sequence, key, value = parsed
            expected = sequences.get(sender, self._sequence(sender))
            events = (Event("message", (EventAttribute("sender", sender),)),)
            if sequence != expected:
                outcome.results.append(
                    ExecTxResult(WrongSequence.abci_code, log="sequence", codespace="test")
                )
                continue
            sequences[sender] = expected + 1
            outcome.changes[b"sequence/" + sender.encode()] = str(expected + 1).encode()
            if value == b"!":
                outcome.results.append(ExecTxResult(21, log="asked to fail", codespace="test", events=events))
                continue
            outcome.changes[b"note/" + key] = value or None
            outcome.results.append(ExecTxResult(0, data=key, gas_wanted=2, gas_used=1, events=events))
        return outcome

    def note_committed(self, height: int, time_ns: int) -> None:
        self._ahead.clear()

    def query(self, path: str, data: bytes) -> bytes | None:
        return data if path == "/echo" else None


def make_genesis(public_key: bytes, *, heartbeat_ms: int = 0, name: str = "notes") -> Genesis:
    """A chain with one validator and nobody else."""
    from dataclasses import replace

    return Genesis(
        version=GENESIS_VERSION,
        name=name,
        genesis_time_ms=GENESIS_TIME_MS,
        address_prefix="local",
        params=replace(
            NETWORK_PARAMS, heartbeat_ms=heartbeat_ms, max_validators=1, min_stake_udllm=STAKE_UDLLM
        ),
        accounts=(GenesisAccount(STAKER, STAKE_UDLLM),),
        models=(),
        validators=(GenesisValidator(public_key, STAKER, STAKE_UDLLM),),
        nonce=b"n" * 32,
    )


@dataclass
class ManualClock:
    """A clock that tests turn; ticks by a millisecond at every look."""

    now_ns: int = (GENESIS_TIME_MS + 1000) * 1_000_000

    def __call__(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns


def open_chain(
    home: Path,
    *,
    seed: bytes = b"s" * 32,
    clock: Callable[[], int] | None = None,
    heartbeat_ms: int = 0,
    name: str = "notes",
) -> SoloChain:
    """A chain over the notes application in a folder; not opened yet."""
    signer = SeedSigner(seed)
    store = Store(home / "data.db")
    application = NotesApplication(store.get)
    genesis = make_genesis(signer.public_key, heartbeat_ms=heartbeat_ms, name=name)
    sign_state = SignState.load(home / "sign_state")
    return SoloChain(store, application, genesis, signer, sign_state, clock or ManualClock())


async def until_settled(engine: SoloEngine) -> int:
    """Waits for the height at which nothing is left to do, however long a block takes.

    A look at the mempool waits behind the block that is being made; what that block calls for is begun by then, and
    the second look waits behind it.
    """
    while True:
        height = engine.store.blocks.latest_height()
        waiting = [(await engine.pending(1)).count for _ in range(2)]
        if height and not waiting[-1] and engine.store.blocks.latest_height() == height:
            return height
