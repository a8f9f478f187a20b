"""What an application answers CometBFT: the responses of ABCI 2.0 as v0.38 reads them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import ClassVar, Protocol

from dllm_protocol.comet_wire import bytes_field, message_field, varint_field
from dllm_protocol.protobuf import delimited, uvarint
from dllm_protocol.results import Event, ExecTxResult
from full_node.consensus.abci.types import ValidatorPower, encode_snapshot
from full_node.state.snapshots import ApplyResult, OfferResult, Snapshot


class Response(Protocol):
    """An answer: its number in Response's oneof, and its bytes."""

    @property
    def number(self) -> int: ...
    def encode(self) -> bytes: ...


class ProposalStatus(IntEnum):
    """Whether a proposed block is one to vote for."""

    ACCEPT = 1
    REJECT = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """ABCI's exception: the application cannot go on, and CometBFT stops."""

    number: ClassVar[int] = 1
    error: str

    def encode(self) -> bytes:
        """ResponseException{error=1}."""
        return bytes_field(1, self.error.encode())


@dataclass(frozen=True, slots=True)
class Echo:
    """What was said, said back."""

    number: ClassVar[int] = 2
    message: str

    def encode(self) -> bytes:
        """ResponseEcho{message=1}."""
        return bytes_field(1, self.message.encode())


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything before was answered."""

    number: ClassVar[int] = 3

    def encode(self) -> bytes:
        """ResponseFlush{}."""
        return b""


@dataclass(frozen=True, slots=True)
class Info:
    """Where the application stands: the last block that Commit made durable, 0 before the first."""

    number: ClassVar[int] = 4
    data: str
    version: str
    app_version: int
    last_block_height: int
    last_block_app_hash: bytes

    def encode(self) -> bytes:
        """ResponseInfo{data=1, version=2, app_version=3, last_block_height=4, last_block_app_hash=5}."""
        return (
            bytes_field(1, self.data.encode())
            + bytes_field(2, self.version.encode())
            + varint_field(3, self.app_version)
            + varint_field(4, self.last_block_height)
            + bytes_field(5, self.last_block_app_hash)
        )


@dataclass(frozen=True, slots=True)
class InitChain:
    """The root of the first state; parameters and validators stay those of the genesis file."""

    number: ClassVar[int] = 6
    app_hash: bytes

    def encode(self) -> bytes:
        """ResponseInitChain{app_hash=3}."""
        return bytes_field(3, self.app_hash)


@dataclass(frozen=True, slots=True)
class Query:
    """A value with its proof operation, or a refusal."""

    number: ClassVar[int] = 7
    code: int = 0
    log: str = ""
    key: bytes = b""
    value: bytes = b""
    proof_type: str = ""
    proof: bytes = b""
    height: int = 0
    codespace: str = ""

    def encode(self) -> bytes:
        """ResponseQuery{code=1, log=3, key=6, value=7, proof_ops=8, height=9, codespace=10}."""
        operation = b""
        if self.proof:
            # ProofOps{ops=1 repeated ProofOp{type=1, key=2, data=3}}
            inner = (
                bytes_field(1, self.proof_type.encode())
                + bytes_field(2, self.key)
                + bytes_field(3, self.proof)
            )
            operation = message_field(8, message_field(1, inner))
        return (
            varint_field(1, self.code)
            + bytes_field(3, self.log.encode())
            + bytes_field(6, self.key)
            + bytes_field(7, self.value)
            + operation
            + varint_field(9, self.height)
            + bytes_field(10, self.codespace.encode())
        )


@dataclass(frozen=True, slots=True)
class CheckTx:
    """Whether a transaction may wait; code 0 means yes."""

    number: ClassVar[int] = 9
    code: int
    log: str = ""
    gas_wanted: int = 0
    codespace: str = ""

    def encode(self) -> bytes:
        """ResponseCheckTx{code=1, log=3, gas_wanted=5, codespace=8}."""
        return (
            varint_field(1, self.code)
            + bytes_field(3, self.log.encode())
            + varint_field(5, self.gas_wanted)
            + bytes_field(8, self.codespace.encode())
        )


@dataclass(frozen=True, slots=True)
class Commit:
    """The block is durable; blocks below `retain_height` are not needed any more (0: all are)."""

    number: ClassVar[int] = 12
    retain_height: int

    def encode(self) -> bytes:
        """ResponseCommit{retain_height=3}."""
        return varint_field(3, self.retain_height)


@dataclass(frozen=True, slots=True)
class ListSnapshots:
    """What others can have."""

    number: ClassVar[int] = 13
    snapshots: tuple[Snapshot, ...]

    def encode(self) -> bytes:
        """ResponseListSnapshots{snapshots=1}."""
        return b"".join(message_field(1, encode_snapshot(one)) for one in self.snapshots)


@dataclass(frozen=True, slots=True)
class OfferSnapshot:
    """Whether the snapshot is taken."""

    number: ClassVar[int] = 14
    result: OfferResult

    def encode(self) -> bytes:
        """ResponseOfferSnapshot{result=1}."""
        return varint_field(1, self.result)


@dataclass(frozen=True, slots=True)
class LoadSnapshotChunk:
    """A part of a snapshot; empty when there is none such."""

    number: ClassVar[int] = 15
    chunk: bytes

    def encode(self) -> bytes:
        """ResponseLoadSnapshotChunk{chunk=1}."""
        return bytes_field(1, self.chunk)


@dataclass(frozen=True, slots=True)
class ApplySnapshotChunk:
    """Whether a part was taken, which to fetch again, and whom to ask no more."""

    number: ClassVar[int] = 16
    result: ApplyResult
    refetch: tuple[int, ...] = ()
    reject_senders: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """ResponseApplySnapshotChunk{result=1, refetch_chunks=2 packed, reject_senders=3}."""
        return (
            varint_field(1, self.result)
            + bytes_field(2, b"".join(uvarint(one) for one in self.refetch))
            + b"".join(message_field(3, one.encode()) for one in self.reject_senders)
        )


@dataclass(frozen=True, slots=True)
class PrepareProposal:
    """The transactions of the block to propose, in order."""

    number: ClassVar[int] = 17
    txs: tuple[bytes, ...]

    def encode(self) -> bytes:
        """ResponsePrepareProposal{txs=1}."""
        return b"".join(message_field(1, one) for one in self.txs)


@dataclass(frozen=True, slots=True)
class ProcessProposal:
    """Whether to vote for a block."""

    number: ClassVar[int] = 18
    status: ProposalStatus

    def encode(self) -> bytes:
        """ResponseProcessProposal{status=1}."""
        return varint_field(1, self.status)


@dataclass(frozen=True, slots=True)
class ExtendVote:
    """Nothing is added to votes on this chain."""

    number: ClassVar[int] = 19

    def encode(self) -> bytes:
        """ResponseExtendVote{}."""
        return b""


@dataclass(frozen=True, slots=True)
class VerifyVoteExtension:
    """Whether an addition to a vote is taken."""

    number: ClassVar[int] = 20
    status: ProposalStatus

    def encode(self) -> bytes:
        """ResponseVerifyVoteExtension{status=1}; its numbers are those of proposals."""
        return varint_field(1, self.status)


@dataclass(frozen=True, slots=True)
class FinalizeBlock:
    """What a block does: one result a transaction, the root of the state after it, changed powers."""

    number: ClassVar[int] = 21
    results: tuple[ExecTxResult, ...]
    app_hash: bytes
    events: tuple[Event, ...] = ()
    validator_updates: tuple[ValidatorPower, ...] = ()
    app_version: int | None = None
    """The application's version in headers from the next one on; None = as before."""

    def encode(self) -> bytes:
        """ResponseFinalizeBlock{events=1, tx_results=2, validator_updates=3, consensus_param_updates=4, app_hash=5}.

        Of the parameters only ConsensusParams{version=4 VersionParams{app=1}} ever changes.
        """
        parts = [message_field(1, encode_event(one)) for one in self.events]
        parts += [message_field(2, encode_result(one)) for one in self.results]
        parts += [message_field(3, one.encode()) for one in self.validator_updates]
        if self.app_version is not None:
            parts.append(message_field(4, message_field(4, varint_field(1, self.app_version))))
        parts.append(bytes_field(5, self.app_hash))
        return b"".join(parts)


def encode_response(response: Response) -> bytes:
    """One Response with its length before it, as it goes onto the wire."""
    if type(response) is CheckTx and not response.code:
        return _accepted(response)
    return _framed(response)


@lru_cache(maxsize=1024)
def _accepted(response: CheckTx) -> bytes:
    """Most transactions are accepted, and they differ by their weight only."""
    return _framed(response)


def _framed(response: Response) -> bytes:
    message = message_field(response.number, response.encode())
    return uvarint(len(message)) + message


def encode_event(event: Event) -> bytes:
    """Event{type=1, attributes=2 repeated EventAttribute{key=1, value=2, index=3}}."""
    parts = [_named(event.type)]
    for one in event.attributes:
        value = one.value.encode()
        attribute = _named(one.key)
        if value:
            attribute += _SECOND + delimited(value)
        if one.index:
            attribute += _INDEXED
        parts += (_SECOND, delimited(attribute))
    return b"".join(parts)


@lru_cache(maxsize=256)
def _named(name: str) -> bytes:
    """Field 1 with a name: there are few, and a block has them thousands of times."""
    return bytes_field(1, name.encode())


_SECOND = b"\x12"
"""Tag of a length-delimited field 2."""
_INDEXED = b"\x18\x01"
"""Field 3, true."""


def encode_result(result: ExecTxResult) -> bytes:
    """The whole ExecTxResult: code=1, data=2, log=3, info=4, gas_wanted=5, gas_used=6, events=7, codespace=8."""
    parts = [
        varint_field(1, result.code),
        bytes_field(2, result.data),
        bytes_field(3, result.log.encode()),
        bytes_field(4, result.info.encode()),
        _gas(result.gas_wanted, result.gas_used),
    ]
    parts += [_EVENT + delimited(encode_event(one)) for one in result.events]
    parts.append(bytes_field(8, result.codespace.encode()))
    return b"".join(parts)


@lru_cache(maxsize=256)
def _gas(wanted: int, used: int) -> bytes:
    return varint_field(5, wanted) + varint_field(6, used)


_EVENT = b"\x3a"
"""Tag of field 7."""
