"""What a handler may know: the block, the rules in force, the state, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from dllm_protocol import state_keys
from dllm_protocol.params import Params
from dllm_protocol.records import Chain
from dllm_protocol.results import Event, EventAttribute
from full_node.state_machine.state import Overlay, StateReader, read

NANOSECONDS_PER_MS = 1_000_000


class MisbehaviourKind(IntEnum):
    """What a validator did, by ABCI's numbers."""

    DUPLICATE_VOTE = 1
    LIGHT_CLIENT_ATTACK = 2


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """A validator's proven misbehaviour, whose evidence stands in the block; the engine has verified it."""

    kind: MisbehaviourKind
    validator: bytes
    """Address of the consensus key, 20 bytes."""
    power: int
    """Its voting power then."""
    height: int
    """Where it happened; for an attack on light clients, the last height before it that both chains share."""
    time_ms: int
    """Time of the block at that height, in milliseconds since 1970 (UTC)."""
    total_power: int
    """Voting power of the whole set then."""


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The block that transactions stand in."""

    chain_id: str
    height: int
    time_ns: int
    """Block time since 1970 (UTC)."""
    misbehaviour: tuple[Misbehaviour, ...] = ()
    """What the block proves against validators; it is dealt with before the transactions."""

    @property
    def time_ms(self) -> int:
        """Block time in whole milliseconds, rounded down."""
        return self.time_ns // NANOSECONDS_PER_MS


@dataclass(frozen=True, slots=True)
class Scope:
    """A block with the rules that hold in it."""

    block: BlockContext
    params: Params
    epoch: int
    """Whole epochs of block time since genesis."""


@dataclass(slots=True)
class ActionContext:
    """One action on its way through a handler."""

    scope: Scope
    state: Overlay
    sender: bytes
    """The account that pays and stands behind the action."""
    by_chat_key: bool
    events: list[Event] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    """What the result carries, joined in the order of the actions."""
    silent: bool = False
    """Whether nobody will read the events, as in CheckTx, which runs far more often than blocks do."""

    @property
    def block(self) -> BlockContext:
        """The block that the action stands in."""
        return self.scope.block

    @property
    def params(self) -> Params:
        """Parameters of the chain."""
        return self.scope.params

    @property
    def epoch(self) -> int:
        """Epoch of the block."""
        return self.scope.epoch

    def emit(self, event_type: str, **attributes: bytes | int | str) -> None:
        """Tell searchers what happened; bytes are shown as hex."""
        if not self.silent:
            self.events.append(make_event(event_type, **attributes))


class NoChain(RuntimeError):
    """The state holds no chain: `init_chain` has not been run and stored."""


def make_event(event_type: str, **attributes: bytes | int | str) -> Event:
    """An event with its attributes as text; who and what is searchable, how much is not.

    Each searchable attribute costs every node a row in an index for ever, and nobody looks for an amount.
    """
    found = [
        EventAttribute(
            name, value.hex() if isinstance(value, bytes) else str(value), not isinstance(value, int)
        )
        for name, value in attributes.items()
    ]
    return Event(event_type, tuple(found))


def chain_of(state: StateReader) -> Chain:
    """The chain that the state belongs to. Raises NoChain."""
    chain = read(state, state_keys.CHAIN, Chain)
    if chain is None:
        raise NoChain("the state is empty: start the chain from its genesis first")
    return chain


def scope_of(state: StateReader, block: BlockContext) -> Scope:
    """The rules that hold in a block. Raises NoChain."""
    chain = chain_of(state)
    params = read(state, state_keys.PARAMS, Params)
    if params is None:
        raise NoChain("the state has no parameters: start the chain from its genesis first")
    since_genesis_ms = max(0, block.time_ms - chain.genesis_time_ms)
    return Scope(block, params, since_genesis_ms // params.epoch_ms)
