"""CometBFT v0.38's RPC JSON of headers, commits and validators, both directions, strict.

`x_to_json` writes what a v0.38 node answers; `x_from_json` reads exactly that and raises MalformedBlock
for anything else. Nothing is verified here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import UINT64_MAX
from dllm_protocol.commit import (
    INT32_MAX,
    UINT32_MAX,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    PartSetHeader,
)
from dllm_protocol.header import Header
from dllm_protocol.json_shape import (
    base64_bytes,
    hex_bytes,
    integer,
    items,
    number,
    shape,
    text,
    to_base64,
    to_hex,
)
from dllm_protocol.light_block import SignedHeader
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import VALIDATORS_MAX, Validator, ValidatorSet

JsonObject = dict[str, Any]

_HASHES = (
    "last_commit_hash",
    "data_hash",
    "validators_hash",
    "next_validators_hash",
    "consensus_hash",
    "app_hash",
    "last_results_hash",
    "evidence_hash",
)
_KEY_TYPE = "tendermint/PubKeyEd25519"


def block_id_to_json(block_id: BlockID) -> JsonObject:
    """Write a block id."""
    parts = block_id.part_set_header
    return {"hash": to_hex(block_id.hash), "parts": {"total": parts.total, "hash": to_hex(parts.hash)}}


def block_id_from_json(value: object) -> BlockID:
    """Read a block id."""
    fields = shape("block_id", value, ("hash", "parts"))
    parts = shape("block_id.parts", fields["parts"], ("total", "hash"))
    header = PartSetHeader(
        number("block_id.parts.total", parts["total"], 0, UINT32_MAX),
        hex_bytes("block_id.parts.hash", parts["hash"], (0, 32)),
    )
    return BlockID(hex_bytes("block_id.hash", fields["hash"], (0, 32)), header)


def header_to_json(header: Header) -> JsonObject:
    """Write a header; a zero app version is left out, as Go does."""
    version = {"block": str(header.block_version)}
    if header.app_version:
        version["app"] = str(header.app_version)
    return {
        "version": version,
        "chain_id": header.chain_id,
        "height": str(header.height),
        "time": header.time.to_rfc3339(),
        "last_block_id": block_id_to_json(header.last_block_id),
        **{name: to_hex(getattr(header, name)) for name in _HASHES},
        "proposer_address": to_hex(header.proposer_address),
    }


def header_from_json(value: object) -> Header:
    """Read a header."""
    plain = ("version", "chain_id", "height", "time", "last_block_id", "proposer_address")
    fields = shape("header", value, (*plain, *_HASHES))
    version = shape("header.version", fields["version"], ("block",), ("app",))
    return Header(
        chain_id=text("header.chain_id", fields["chain_id"], 50),
        height=integer("header.height", fields["height"], 0),
        time=Timestamp.from_rfc3339(text("header.time", fields["time"], 40)),
        last_block_id=block_id_from_json(fields["last_block_id"]),
        **{name: hex_bytes(f"header.{name}", fields[name]) for name in _HASHES},
        proposer_address=hex_bytes("header.proposer_address", fields["proposer_address"], (0, 20)),
        app_version=integer("header.version.app", version.get("app", "0"), 0, UINT64_MAX),
        block_version=integer("header.version.block", version["block"], 0, UINT64_MAX),
    )


def commit_to_json(commit: Commit) -> JsonObject:
    """Write a commit; an absent signature is null."""
    return {
        "height": str(commit.height),
        "round": commit.round,
        "block_id": block_id_to_json(commit.block_id),
        "signatures": [
            {
                "block_id_flag": int(one.flag),
                "validator_address": to_hex(one.validator_address),
                "timestamp": one.timestamp.to_rfc3339(),
                "signature": to_base64(one.signature) if one.signature else None,
            }
            for one in commit.signatures
        ],
    }


def commit_from_json(value: object) -> Commit:
    """Read a commit."""
    fields = shape("commit", value, ("height", "round", "block_id", "signatures"))
    signatures = items("commit.signatures", fields["signatures"], VALIDATORS_MAX)
    return Commit(
        integer("commit.height", fields["height"], 0),
        number("commit.round", fields["round"], 0, INT32_MAX),
        block_id_from_json(fields["block_id"]),
        tuple(_commit_sig_from_json(one) for one in signatures),
    )


def _commit_sig_from_json(value: object) -> CommitSig:
    fields = shape("signature", value, ("block_id_flag", "validator_address", "timestamp", "signature"))
    return CommitSig(
        BlockIDFlag(number("block_id_flag", fields["block_id_flag"], 1, 3)),
        hex_bytes("validator_address", fields["validator_address"], (0, 20)),
        Timestamp.from_rfc3339(text("signature timestamp", fields["timestamp"], 40)),
        base64_bytes("signature", fields["signature"], 64),
    )


def signed_header_to_json(signed: SignedHeader) -> JsonObject:
    """Write a signed header."""
    return {"header": header_to_json(signed.header), "commit": commit_to_json(signed.commit)}


def signed_header_from_json(value: object) -> SignedHeader:
    """Read a signed header."""
    fields = shape("signed_header", value, ("header", "commit"))
    return SignedHeader(header_from_json(fields["header"]), commit_from_json(fields["commit"]))


def validator_to_json(one: Validator) -> JsonObject:
    """Write a validator."""
    return {
        "address": to_hex(one.address),
        "pub_key": {"type": _KEY_TYPE, "value": to_base64(one.public_key)},
        "voting_power": str(one.voting_power),
        "proposer_priority": str(one.proposer_priority),
    }


def validator_from_json(value: object) -> Validator:
    """Read a validator; its address must be its key's."""
    fields = shape("validator", value, ("address", "pub_key", "voting_power"), ("proposer_priority",))
    key = shape("pub_key", fields["pub_key"], ("type", "value"))
    if key["type"] != _KEY_TYPE:
        raise MalformedBlock(f"validator key type is {str(key['type'])[:60]!r}, not {_KEY_TYPE!r}")
    try:
        one = Validator(
            base64_bytes("pub_key", key["value"], 32),
            integer("voting_power", fields["voting_power"], 0),
            integer("proposer_priority", fields.get("proposer_priority", "0")),
        )
    except InvalidBlock as error:
        raise MalformedBlock(error.message) from error
    address = hex_bytes("validator address", fields["address"], (20,))
    if address != one.address:
        raise MalformedBlock(
            f"validator address {to_hex(address)} is not that of its key, {to_hex(one.address)}"
        )
    return one


def validators_to_json(
    height: int, validators: ValidatorSet, page: Sequence[Validator] | None = None
) -> JsonObject:
    """Write the result of the `validators` call; `page` narrows the list."""
    shown = validators.validators if page is None else page
    return {
        "block_height": str(height),
        "validators": [validator_to_json(one) for one in shown],
        "count": str(len(shown)),
        "total": str(len(validators)),
    }


def validators_page_from_json(value: object) -> tuple[int, tuple[Validator, ...], int]:
    """Read one page of the `validators` call.

    Returns:
        The height it is for, the validators on this page, and how many there are in all.
    """
    fields = shape("validators", value, ("block_height", "validators", "count", "total"))
    members = tuple(
        validator_from_json(one) for one in items("validators", fields["validators"], VALIDATORS_MAX)
    )
    count = integer("validators.count", fields["count"], 0, VALIDATORS_MAX)
    if count != len(members):
        raise MalformedBlock(f"validators.count says {count}, the list has {len(members)}")
    total = integer("validators.total", fields["total"], 0, VALIDATORS_MAX)
    return integer("validators.block_height", fields["block_height"], 0), members, total
