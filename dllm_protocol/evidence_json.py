"""CometBFT v0.38's RPC JSON of votes and evidence, both directions, strict; nothing is verified here."""

from __future__ import annotations

from typing import assert_never

from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import INT64_MAX
from dllm_protocol.commit import INT32_MAX
from dllm_protocol.evidence import DuplicateVoteEvidence, Evidence, Vote
from dllm_protocol.header_json import (
    JsonObject,
    block_id_from_json,
    block_id_to_json,
    signed_header_from_json,
    signed_header_to_json,
    validator_from_json,
    validator_to_json,
)
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
from dllm_protocol.light_attack import ConflictingBlock, LightClientAttackEvidence
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import VALIDATORS_MAX, ValidatorSet

_DUPLICATE_VOTE = "tendermint/DuplicateVoteEvidence"
_LIGHT_CLIENT_ATTACK = "tendermint/LightClientAttackEvidence"
_ATTACK_KEYS = ("ConflictingBlock", "CommonHeight", "ByzantineValidators", "TotalVotingPower", "Timestamp")
_VOTE_KEYS = (
    "type",
    "height",
    "round",
    "block_id",
    "timestamp",
    "validator_address",
    "validator_index",
    "signature",
)


def vote_to_json(vote: Vote) -> JsonObject:
    """Write a vote."""
    return {
        "type": vote.type,
        "height": str(vote.height),
        "round": vote.round,
        "block_id": block_id_to_json(vote.block_id),
        "timestamp": vote.timestamp.to_rfc3339(),
        "validator_address": to_hex(vote.validator_address),
        "validator_index": vote.validator_index,
        "signature": to_base64(vote.signature),
        "extension": to_base64(vote.extension) if vote.extension else None,
        "extension_signature": to_base64(vote.extension_signature) if vote.extension_signature else None,
    }


def vote_from_json(value: object) -> Vote:
    """Read a vote."""
    fields = shape("vote", value, _VOTE_KEYS, ("extension", "extension_signature"))
    return Vote(
        number("vote.type", fields["type"], 0, INT32_MAX),
        integer("vote.height", fields["height"], 0),
        number("vote.round", fields["round"], 0, INT32_MAX),
        block_id_from_json(fields["block_id"]),
        Timestamp.from_rfc3339(text("vote.timestamp", fields["timestamp"], 40)),
        hex_bytes("vote.validator_address", fields["validator_address"], (0, 20)),
        number("vote.validator_index", fields["validator_index"], 0, INT32_MAX),
        base64_bytes("vote.signature", fields["signature"], 64),
        base64_bytes("vote.extension", fields.get("extension")),
        base64_bytes("vote.extension_signature", fields.get("extension_signature"), 64),
    )


def evidence_to_json(one: Evidence) -> JsonObject:
    """Write one piece of evidence of either kind."""
    match one:
        case DuplicateVoteEvidence():
            return {"type": _DUPLICATE_VOTE, "value": _duplicate_vote_to_json(one)}
        case LightClientAttackEvidence():
            return {"type": _LIGHT_CLIENT_ATTACK, "value": _attack_to_json(one)}
        case _:
            assert_never(one)


def evidence_from_json(value: object) -> Evidence:
    """Read one piece of evidence of either kind."""
    outer = shape("evidence", value, ("type", "value"))
    if outer["type"] == _DUPLICATE_VOTE:
        return _duplicate_vote_from_json(outer["value"])
    if outer["type"] == _LIGHT_CLIENT_ATTACK:
        return _attack_from_json(outer["value"])
    known = f"neither {_DUPLICATE_VOTE!r} nor {_LIGHT_CLIENT_ATTACK!r}"
    raise MalformedBlock(f"evidence type {str(outer['type'])[:60]!r} is {known}")


def _duplicate_vote_to_json(one: DuplicateVoteEvidence) -> JsonObject:
    return {
        "vote_a": vote_to_json(one.vote_a),
        "vote_b": vote_to_json(one.vote_b),
        "TotalVotingPower": str(one.total_voting_power),
        "ValidatorPower": str(one.validator_power),
        "Timestamp": one.timestamp.to_rfc3339(),
    }


def _duplicate_vote_from_json(value: object) -> DuplicateVoteEvidence:
    keys = ("vote_a", "vote_b", "TotalVotingPower", "ValidatorPower", "Timestamp")
    fields = shape("evidence value", value, keys)
    return DuplicateVoteEvidence(
        vote_from_json(fields["vote_a"]),
        vote_from_json(fields["vote_b"]),
        integer("TotalVotingPower", fields["TotalVotingPower"], 0, INT64_MAX),
        integer("ValidatorPower", fields["ValidatorPower"], 0, INT64_MAX),
        Timestamp.from_rfc3339(text("evidence Timestamp", fields["Timestamp"], 40)),
    )


def _attack_to_json(one: LightClientAttackEvidence) -> JsonObject:
    block = one.conflicting_block
    named = [validator_to_json(each) for each in one.byzantine_validators]
    return {
        "ConflictingBlock": {
            "signed_header": signed_header_to_json(block.signed_header),
            "validator_set": {
                "validators": [validator_to_json(each) for each in block.validators.validators],
                "proposer": validator_to_json(block.validators.proposer),
            },
        },
        "CommonHeight": str(one.common_height),
        # A node takes an empty list for another thing than none, and asks for none where nobody is named.
        "ByzantineValidators": named or None,
        "TotalVotingPower": str(one.total_voting_power),
        "Timestamp": one.timestamp.to_rfc3339(),
    }


def _attack_from_json(value: object) -> LightClientAttackEvidence:
    fields = shape("evidence value", value, _ATTACK_KEYS)
    block = shape("ConflictingBlock", fields["ConflictingBlock"], ("signed_header", "validator_set"))
    listed = shape("validator_set", block["validator_set"], ("validators", "proposer"))
    members = items("validator_set.validators", listed["validators"], VALIDATORS_MAX)
    named = items("ByzantineValidators", fields["ByzantineValidators"], VALIDATORS_MAX)
    proposer = validator_from_json(listed["proposer"])
    try:
        validators = ValidatorSet(tuple(validator_from_json(one) for one in members), proposer.address)
    except InvalidBlock as error:
        raise MalformedBlock(error.message) from error
    return LightClientAttackEvidence(
        ConflictingBlock(signed_header_from_json(block["signed_header"]), validators),
        integer("CommonHeight", fields["CommonHeight"]),
        tuple(validator_from_json(one) for one in named),
        integer("TotalVotingPower", fields["TotalVotingPower"]),
        Timestamp.from_rfc3339(text("evidence Timestamp", fields["Timestamp"], 40)),
    )
