"""broadcast_evidence: evidence that holds is named, all other is refused in CometBFT's words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dllm_protocol.block import SignedHeader
from dllm_protocol.block_json import (
    evidence_to_json,
    signed_header_from_json,
    validators_page_from_json,
)
from dllm_protocol.commit import BlockID, Commit, PartSetHeader, VoteType, vote_sign_bytes
from dllm_protocol.evidence import DuplicateVoteEvidence, Vote
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.light_attack import ConflictingBlock, LightClientAttackEvidence
from dllm_protocol.signing import SeedSigner
from dllm_protocol.validator_set import ValidatorSet
from tests.full_node.rpc.harness import Served, served

KEY = SeedSigner(b"s" * 32)
"""The served chain's only validator."""


async def _chain_at(node: Served, height: int) -> tuple[SignedHeader, ValidatorSet]:
    signed = signed_header_from_json((await node.result("commit", height=str(height)))["signed_header"])
    page = await node.result("validators", height=str(height))
    return signed, ValidatorSet.listed(validators_page_from_json(page)[1])


async def _refusal(node: Served, evidence: Any) -> str:
    answer = await node.post("broadcast_evidence", evidence=evidence)
    words: str = answer["error"]["data"]
    return words


def _vote(signed: SignedHeader, chain_id: str, block_hash: bytes, address: bytes) -> Vote:
    block_id = BlockID(block_hash, PartSetHeader(1, block_hash))
    unsigned = Vote(2, signed.header.height, 0, block_id, signed.header.time, address, 0, b"")
    return replace(unsigned, signature=KEY.sign(unsigned.sign_bytes(chain_id)))


async def test_what_is_no_evidence_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await node.settle()
        assert (await node.post("broadcast_evidence"))["error"]["data"] == "no evidence was provided"
        assert "evidence type 'x'" in await _refusal(node, {"type": "x", "value": {}})


async def test_two_votes_are_judged(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await node.settle()
        signed, members = await _chain_at(node, 1)
        address = members.validators[0].address
        votes = [_vote(signed, node.engine.chain_id, bytes([byte]) * 32, address) for byte in (1, 2)]
        power = members.total_power
        evidence = DuplicateVoteEvidence(votes[0], votes[1], power, power, signed.header.time)
        found = await node.result("broadcast_evidence", evidence=evidence_to_json(evidence))
        assert found == {"hash": to_base64(evidence.hash())}

        swapped = replace(evidence, vote_a=votes[1], vote_b=votes[0])
        words = await _refusal(node, evidence_to_json(swapped))
        assert words.startswith("evidence.ValidateBasic failed: duplicate votes are not in rising order")
        weak = await _refusal(node, evidence_to_json(replace(evidence, validator_power=power + 1)))
        assert weak.startswith("failed to add evidence: Invalid evidence: validator power")
        assert f"({power + 1} != {power})" in weak
        forged = replace(evidence, vote_b=replace(votes[1], signature=bytes(64)))
        assert "verifying VoteB" in await _refusal(node, evidence_to_json(forged))


async def test_an_attack_on_light_clients_is_judged(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        latest = await node.settle()
        common, members = await _chain_at(node, 1)
        signed, _ = await _chain_at(node, latest)
        header = replace(signed.header, app_hash=b"\x07" * 32)
        block_id = BlockID(header.hash(), PartSetHeader(1, header.hash()))
        entry = signed.commit.signatures[0]
        message = vote_sign_bytes(
            header.chain_id, VoteType.PRECOMMIT, header.height, 0, block_id, entry.timestamp
        )
        commit = Commit(header.height, 0, block_id, (replace(entry, signature=KEY.sign(message)),))
        attack = LightClientAttackEvidence(
            ConflictingBlock(SignedHeader(header, commit), members),
            1,
            members.validators,
            members.total_power,
            common.header.time,
        )
        found = await node.result("broadcast_evidence", evidence=evidence_to_json(attack))
        assert found == {"hash": to_base64(attack.hash())}
        nobody = await _refusal(node, evidence_to_json(replace(attack, byzantine_validators=())))
        assert nobody == (
            "failed to add evidence: Invalid evidence: expected 1 byzantine validators from evidence but got 0"
        )
        honest = replace(attack, conflicting_block=ConflictingBlock(signed, members))
        words = await _refusal(node, evidence_to_json(honest))
        assert "trusted header hash matches" in words
        assert to_hex(signed.header.hash()) in words
        ahead = await _refusal(node, evidence_to_json(replace(attack, common_height=latest + 1)))
        assert f"common height is ahead of the conflicting block height ({latest + 1} > {latest})" in ahead
