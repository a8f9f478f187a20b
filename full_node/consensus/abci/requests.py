"""What CometBFT asks of an application: the sixteen requests of ABCI 2.0 as v0.38 sends them.

A request that cannot be read ends the node. So whatever a stranger may put into one is read in full: CometBFT passes
the path and height of a query on as its RPC was given them, and the height of a chunk as a peer named it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.comet_wire import BYTES, VARINT, Fields, read_fields
from dllm_protocol.consensus_params import BLOCK_TXS_MAX, ConsensusParams
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.protobuf import LENGTH_DELIMITED, read_uvarint, tag, varint_field
from dllm_protocol.protobuf import read_fields as walk_fields
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.abci.types import (
    UINT32_MAX,
    CommitInfo,
    Offence,
    ValidatorPower,
    decode_consensus_params,
    decode_snapshot,
)
from full_node.state.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Echo:
    """To be said back."""

    message: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything asked so far shall be answered now."""


@dataclass(frozen=True, slots=True)
class Info:
    """Where the application stands; asked first of all, to find out what to replay."""

    version: str
    block_version: int
    p2p_version: int
    abci_version: str


@dataclass(frozen=True, slots=True)
class InitChain:
    """The chain begins."""

    time: Timestamp
    chain_id: str
    params: ConsensusParams
    validators: tuple[ValidatorPower, ...]
    app_state: bytes
    initial_height: int


@dataclass(frozen=True, slots=True)
class Query:
    """A read; height 0 leaves the choice to the application."""

    data: bytes
    path: str
    height: int
    prove: bool


@dataclass(frozen=True, slots=True)
class CheckTx:
    """May this transaction wait in the mempool? `recheck`: it waits already, and a block came."""

    tx: bytes
    recheck: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """What the last FinalizeBlock computed shall be made durable."""


@dataclass(frozen=True, slots=True)
class ListSnapshots:
    """Which snapshots can others have?"""


@dataclass(frozen=True, slots=True)
class OfferSnapshot:
    """Another node has this snapshot; `app_hash` is what the light client verified for its height."""

    snapshot: Snapshot
    app_hash: bytes


@dataclass(frozen=True, slots=True)
class LoadSnapshotChunk:
    """A part of one of our snapshots."""

    height: int
    format: int
    chunk: int


@dataclass(frozen=True, slots=True)
class ApplySnapshotChunk:
    """A part of the snapshot that was accepted; `sender` is the peer that gave it."""

    index: int
    chunk: bytes
    sender: str


@dataclass(frozen=True, slots=True)
class PrepareProposal:
    """This node proposes: what shall stand in the block, of what waits?"""

    max_tx_bytes: int
    txs: tuple[bytes, ...]
    last_commit: CommitInfo
    misbehaviour: tuple[Offence, ...]
    height: int
    time: Timestamp
    proposer: bytes


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """A whole block, by what the application may know of it."""

    txs: tuple[bytes, ...]
    last_commit: CommitInfo
    misbehaviour: tuple[Offence, ...]
    hash: bytes
    height: int
    time: Timestamp
    next_validators_hash: bytes
    proposer: bytes


@dataclass(frozen=True, slots=True)
class ProcessProposal(BlockRequest):
    """A block was proposed: is it one to vote for?"""


@dataclass(frozen=True, slots=True)
class OverfullProposal:
    """A block was proposed with more transactions than any may hold; nothing else of it was read."""


@dataclass(frozen=True, slots=True)
class FinalizeBlock(BlockRequest):
    """A block is decided: what does it do?"""


@dataclass(frozen=True, slots=True)
class ExtendVote:
    """What shall be added to this node's precommit? Sent only where vote extensions are switched on."""

    hash: bytes
    height: int


@dataclass(frozen=True, slots=True)
class VerifyVoteExtension:
    """Is another validator's addition to be taken? Sent only where vote extensions are switched on."""

    hash: bytes
    validator: bytes
    height: int
    extension: bytes


Request = (
    Echo
    | Flush
    | Info
    | InitChain
    | Query
    | CheckTx
    | Commit
    | ListSnapshots
    | OfferSnapshot
    | LoadSnapshotChunk
    | ApplySnapshotChunk
    | PrepareProposal
    | ProcessProposal
    | OverfullProposal
    | FinalizeBlock
    | ExtendVote
    | VerifyVoteExtension
)

_NONE = (0, 0, b"")
_BLOCK_SHAPE = {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES}


def decode_request(data: bytes) -> Request:
    """Reads one Request. Raises MalformedBlock."""
    if data.startswith(_CHECK_TX) and (check := _plain_check_tx(data)) is not None:
        return check
    fields = list(walk_fields(data))
    if len(fields) != 1:
        raise MalformedBlock(f"a Request has one field, found {len(fields)}")
    number, _, body = fields[0]
    reader = _READERS.get(number)
    if reader is None or not isinstance(body, bytes):
        raise MalformedBlock(f"Request field {number} is not one of ABCI 2.0")
    return reader(body)


def _plain_check_tx(data: bytes) -> CheckTx | None:
    """A CheckTx as CometBFT writes it, read at once: there are more of them than of all other requests. None leaves
    what is not written so to the general reader.
    """
    try:
        size, at = read_uvarint(data, len(_CHECK_TX))
        if at + size != len(data) or not data.startswith(_TX, at):
            return None
        length, at = read_uvarint(data, at + len(_TX))
    except MalformedBytes:
        return None
    end = at + length
    rest = data[end:]
    if not length or end > len(data) or rest not in (b"", _RECHECK):
        return None
    return CheckTx(data[at:end], bool(rest))


_CHECK_TX = tag(8, LENGTH_DELIMITED)
_TX = tag(1, LENGTH_DELIMITED)
_RECHECK = varint_field(2, 1)


def _echo(data: bytes) -> Echo:
    return Echo(read_fields("RequestEcho", data, {1: BYTES}).text(1))


def _flush(data: bytes) -> Flush:
    read_fields("RequestFlush", data, {})
    return Flush()


def _info(data: bytes) -> Info:
    fields = read_fields("RequestInfo", data, {1: BYTES, 2: VARINT, 3: VARINT, 4: BYTES})
    return Info(fields.text(1), fields.unsigned(2), fields.unsigned(3), fields.text(4))


def _init_chain(data: bytes) -> InitChain:
    shape = {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: BYTES, 6: VARINT}
    fields = read_fields("RequestInitChain", data, shape, frozenset({4}))
    return InitChain(
        time=Timestamp.decode(fields.required(1)),
        chain_id=fields.text(2),
        params=decode_consensus_params(fields.message(3)),
        validators=tuple(ValidatorPower.decode(one) for one in fields.repeated(4)),
        app_state=fields.octets(5),
        initial_height=fields.signed(6),
    )


def _query(data: bytes) -> Query:
    fields = read_fields("RequestQuery", data, {1: BYTES, 2: BYTES, 3: VARINT, 4: VARINT})
    path = fields.octets(2).decode("utf-8", "backslashreplace")
    return Query(fields.octets(1), path, fields.signed(3), bool(fields.unsigned(4, 1)))


def _check_tx(data: bytes) -> CheckTx:
    fields = read_fields("RequestCheckTx", data, {1: BYTES, 2: VARINT})
    return CheckTx(fields.octets(1), bool(fields.unsigned(2, 1)))


def _commit(data: bytes) -> Commit:
    read_fields("RequestCommit", data, {})
    return Commit()


def _list_snapshots(data: bytes) -> ListSnapshots:
    read_fields("RequestListSnapshots", data, {})
    return ListSnapshots()


def _offer_snapshot(data: bytes) -> OfferSnapshot:
    fields = read_fields("RequestOfferSnapshot", data, {1: BYTES, 2: BYTES})
    return OfferSnapshot(decode_snapshot(fields.message(1)), fields.octets(2))


def _load_chunk(data: bytes) -> LoadSnapshotChunk:
    fields = read_fields("RequestLoadSnapshotChunk", data, {1: VARINT, 2: VARINT, 3: VARINT})
    return LoadSnapshotChunk(
        fields.unsigned(1), fields.unsigned(2, UINT32_MAX), fields.unsigned(3, UINT32_MAX)
    )


def _apply_chunk(data: bytes) -> ApplySnapshotChunk:
    fields = read_fields("RequestApplySnapshotChunk", data, {1: VARINT, 2: BYTES, 3: BYTES})
    return ApplySnapshotChunk(fields.unsigned(1, UINT32_MAX), fields.octets(2), fields.text(3))


def _prepare_proposal(data: bytes) -> PrepareProposal:
    shape = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES}
    fields = read_fields("RequestPrepareProposal", data, shape, frozenset({2, 4}))
    return PrepareProposal(
        max_tx_bytes=fields.signed(1),
        txs=tuple(fields.repeated(2)),
        last_commit=CommitInfo.decode_extended(fields.message(3)),
        misbehaviour=tuple(Offence.decode(one) for one in fields.repeated(4)),
        height=fields.signed(5),
        time=Timestamp.decode(fields.required(6)),
        proposer=fields.octets(8),
    )


def _process_proposal(data: bytes) -> ProcessProposal | OverfullProposal:
    # Transactions come first. A block within its bytes has room for millions of empty ones, seconds of reading.
    if len(data) > BLOCK_TXS_MAX and next(islice(walk_fields(data), BLOCK_TXS_MAX, None), _NONE)[0] == 1:
        return OverfullProposal()
    return ProcessProposal(
        *_block(read_fields("RequestProcessProposal", data, _BLOCK_SHAPE, frozenset({1, 3})))
    )


def _finalize_block(data: bytes) -> FinalizeBlock:
    return FinalizeBlock(*_block(read_fields("RequestFinalizeBlock", data, _BLOCK_SHAPE, frozenset({1, 3}))))


def _block(
    fields: Fields,
) -> tuple[tuple[bytes, ...], CommitInfo, tuple[Offence, ...], bytes, int, Timestamp, bytes, bytes]:
    return (
        tuple(fields.repeated(1)),
        CommitInfo.decode(fields.message(2)),
        tuple(Offence.decode(one) for one in fields.repeated(3)),
        fields.octets(4),
        fields.signed(5),
        Timestamp.decode(fields.required(6)),
        fields.octets(7),
        fields.octets(8),
    )


def _extend_vote(data: bytes) -> ExtendVote:
    shape = {1: BYTES, 2: VARINT, 3: BYTES, 4: BYTES, 5: BYTES, 6: BYTES, 7: BYTES, 8: BYTES}
    fields = read_fields("RequestExtendVote", data, shape, frozenset({4, 6}))
    return ExtendVote(fields.octets(1), fields.signed(2))


def _verify_extension(data: bytes) -> VerifyVoteExtension:
    fields = read_fields("RequestVerifyVoteExtension", data, {1: BYTES, 2: BYTES, 3: VARINT, 4: BYTES})
    return VerifyVoteExtension(fields.octets(1), fields.octets(2), fields.signed(3), fields.octets(4))


_READERS: dict[int, Callable[[bytes], Request]] = {
    1: _echo,
    2: _flush,
    3: _info,
    5: _init_chain,
    6: _query,
    8: _check_tx,
    11: _commit,
    12: _list_snapshots,
    13: _offer_snapshot,
    14: _load_chunk,
    15: _apply_chunk,
    16: _prepare_proposal,
    17: _process_proposal,
    18: _extend_vote,
    19: _verify_extension,
    20: _finalize_block,
}
"""By the number in Request's oneof; 4, 7, 9 and 10 were other protocols'."""
