"""ICS-23 messages and their one canonical protobuf form.

The records follow `cosmos/ics23/v1/proofs.proto` (cosmos/ics23@7f2c2d09). Decoding is strict: bytes are
accepted only when encoding what was read gives the same bytes again, so a proof has one spelling. Batch and
compressed proofs (fields 3 and 4 of CommitmentProof) are refused: upstream dropped them, and a verifier that
panics on them is a known fault (ics23#422).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dllm_protocol.errors import MalformedBytes, UnknownField
from dllm_protocol.protobuf import LENGTH_DELIMITED, VARINT, bytes_field, read_fields, varint_field

MAX_PROOF_BYTES = 16 << 20
"""Longest CommitmentProof read. An absence proof carries both neighbours' values, and a frozen list of the most
offers that a chain allows has about 6 MB."""


@dataclass(frozen=True, slots=True)
class LeafOp:
    """How a leaf is hashed: hash(prefix ‖ length(prehash_key(key)) ‖ length(prehash_value(value)))."""

    hash: int = 0
    prehash_key: int = 0
    prehash_value: int = 0
    length: int = 0
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class InnerOp:
    """One step towards the root: hash(prefix ‖ child ‖ suffix)."""

    hash: int = 0
    prefix: bytes = b""
    suffix: bytes = b""


@dataclass(frozen=True, slots=True)
class ExistenceProof:
    """A key and value with the steps from their leaf (first) to the root (last)."""

    key: bytes = b""
    value: bytes = b""
    leaf: LeafOp | None = None
    path: tuple[InnerOp, ...] = ()


@dataclass(frozen=True, slots=True)
class NonExistenceProof:
    """The asked key and its present neighbours, of which one may be missing at an end of the tree."""

    key: bytes = b""
    left: ExistenceProof | None = None
    right: ExistenceProof | None = None


def encode_commitment_proof(proof: ExistenceProof | NonExistenceProof) -> bytes:
    """The canonical bytes of CommitmentProof{exist=1 | nonexist=2}."""
    if isinstance(proof, ExistenceProof):
        return bytes_field(1, encode_existence(proof), always=True)
    parts = [bytes_field(1, proof.key)]
    if proof.left is not None:
        parts.append(bytes_field(2, encode_existence(proof.left), always=True))
    if proof.right is not None:
        parts.append(bytes_field(3, encode_existence(proof.right), always=True))
    return bytes_field(2, b"".join(parts), always=True)


def decode_commitment_proof(data: bytes) -> ExistenceProof | NonExistenceProof:
    """Reads a CommitmentProof.

    Raises:
        MalformedBytes: not the canonical form, too long, or a batch or compressed proof.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise MalformedBytes(f"ICS-23 proof has {len(data)} bytes, at most {MAX_PROOF_BYTES} are read")
    fields = list(_fields(data))
    if len(fields) != 1:
        raise MalformedBytes(
            f"ICS-23 commitment proof must hold exactly one proof, it has {len(fields)} fields"
        )
    number, content = fields[0]
    if number in (3, 4):
        raise MalformedBytes("ICS-23 batch and compressed proofs are refused")
    body = _as_bytes(content, "commitment proof")
    proof: ExistenceProof | NonExistenceProof
    if number == 1:
        proof = _existence(body)
    elif number == 2:
        proof = _non_existence(body)
    else:
        raise UnknownField(f"ICS-23 commitment proof has no field {number}")
    if encode_commitment_proof(proof) != data:
        raise MalformedBytes("ICS-23 proof is not in canonical form: encoding it again gives other bytes")
    return proof


def encode_existence(proof: ExistenceProof) -> bytes:
    """The canonical bytes of one ExistenceProof, without the CommitmentProof around it."""
    parts = [bytes_field(1, proof.key), bytes_field(2, proof.value)]
    if proof.leaf is not None:
        leaf = proof.leaf
        numbers = (leaf.hash, leaf.prehash_key, leaf.prehash_value, leaf.length)
        body = b"".join(varint_field(number, value) for number, value in enumerate(numbers, start=1))
        parts.append(bytes_field(3, body + bytes_field(5, leaf.prefix), always=True))
    for step in proof.path:
        body = varint_field(1, step.hash) + bytes_field(2, step.prefix) + bytes_field(3, step.suffix)
        parts.append(bytes_field(4, body, always=True))
    return b"".join(parts)


def _existence(data: bytes) -> ExistenceProof:
    singles: dict[int, int | bytes] = {}
    path: list[InnerOp] = []
    for number, content in _fields(data):
        if number == 4:
            path.append(_inner_op(_as_bytes(content, "inner op")))
        else:
            _put_single(singles, number, content, allowed=(1, 2, 3), of="existence proof")
    leaf = _leaf_op(_as_bytes(singles[3], "leaf op")) if 3 in singles else None
    return ExistenceProof(
        key=_as_bytes(singles.get(1, b""), "key"),
        value=_as_bytes(singles.get(2, b""), "value"),
        leaf=leaf,
        path=tuple(path),
    )


def _non_existence(data: bytes) -> NonExistenceProof:
    singles = _singles(data, allowed=(1, 2, 3), of="non-existence proof")
    return NonExistenceProof(
        key=_as_bytes(singles.get(1, b""), "key"),
        left=_existence(_as_bytes(singles[2], "left neighbour")) if 2 in singles else None,
        right=_existence(_as_bytes(singles[3], "right neighbour")) if 3 in singles else None,
    )


def _leaf_op(data: bytes) -> LeafOp:
    singles = _singles(data, allowed=(1, 2, 3, 4, 5), of="leaf op")
    return LeafOp(
        hash=_as_int(singles.get(1, 0), "leaf op"),
        prehash_key=_as_int(singles.get(2, 0), "leaf op"),
        prehash_value=_as_int(singles.get(3, 0), "leaf op"),
        length=_as_int(singles.get(4, 0), "leaf op"),
        prefix=_as_bytes(singles.get(5, b""), "leaf prefix"),
    )


def _inner_op(data: bytes) -> InnerOp:
    singles = _singles(data, allowed=(1, 2, 3), of="inner op")
    return InnerOp(
        hash=_as_int(singles.get(1, 0), "inner op"),
        prefix=_as_bytes(singles.get(2, b""), "inner prefix"),
        suffix=_as_bytes(singles.get(3, b""), "inner suffix"),
    )


def _singles(data: bytes, *, allowed: tuple[int, ...], of: str) -> dict[int, int | bytes]:
    found: dict[int, int | bytes] = {}
    for number, content in _fields(data):
        _put_single(found, number, content, allowed=allowed, of=of)
    return found


def _put_single(
    found: dict[int, int | bytes], number: int, content: int | bytes, *, allowed: tuple[int, ...], of: str
) -> None:
    if number not in allowed:
        raise UnknownField(f"ICS-23 {of} has no field {number}")
    if number in found:
        raise MalformedBytes(f"ICS-23 {of} repeats field {number}")
    found[number] = content


def _as_bytes(content: int | bytes, what: str) -> bytes:
    if isinstance(content, int):
        raise MalformedBytes(f"ICS-23 {what} must be length-delimited, it is a number")
    return content


def _as_int(content: int | bytes, what: str) -> int:
    if isinstance(content, bytes):
        raise MalformedBytes(f"ICS-23 {what} must have a number where it has bytes")
    return content


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    for number, wire_type, content in read_fields(data):
        if wire_type not in (VARINT, LENGTH_DELIMITED):
            raise MalformedBytes(f"ICS-23 field {number} has wire type {wire_type}, only 0 and 2 occur")
        yield number, content
