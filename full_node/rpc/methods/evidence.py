"""Evidence of misbehaviour: broadcast_evidence, judged with CometBFT's rules and words."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dllm_protocol.block import SignedHeader
from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.block_json import evidence_from_json
from dllm_protocol.header import Header
from dllm_protocol.json_shape import to_base64
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.evidence import EvidenceAge, InvalidEvidence, verify_evidence
from full_node.consensus.chain_state import validator_set_of
from full_node.consensus.engine import Engine
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext, commit_of


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """This node's chain as the judge of evidence sees it (`dllm_protocol.verification.evidence.ChainHistory`)."""

    engine: Engine

    @property
    def chain_id(self) -> str:
        """The chain's id."""
        return self.engine.chain_id

    @property
    def latest_height(self) -> int:
        """Height of the newest block."""
        return self.engine.store.blocks.latest_height()

    def signed_header(self, height: int) -> SignedHeader | None:
        """A kept block's header and commit."""
        meta = self.engine.store.blocks.meta(height)
        return None if meta is None else SignedHeader(Header.decode(meta.header), commit_of(meta))

    def validators(self, height: int) -> ValidatorSet | None:
        """The set that signed a kept block."""
        signed = self.signed_header(height)
        if signed is None:
            return None
        stored = self.engine.store.blocks.validator_set(signed.header.validators_hash)
        return None if stored is None else validator_set_of(json.loads(stored))


async def broadcast_evidence(context: RpcContext, evidence: object) -> JsonObject:
    """Takes evidence of either kind, judges it against this node's chain and answers with its name.

    This engine orders blocks alone: no block of its own will carry evidence against its one validator, which nobody
    is there to outvote. The answer says that the evidence holds.
    """
    if evidence is None:
        raise internal_error("no evidence was provided")
    found = evidence_from_json(evidence)
    try:
        found.validate_basic()
    except InvalidBlock as error:
        raise internal_error(f"evidence.ValidateBasic failed: {error.message}") from error
    params = context.engine.params
    age = EvidenceAge(params.evidence_max_age_blocks, params.evidence_max_age_ns)
    try:
        verify_evidence(found, StoredHistory(context.engine), age)
    except InvalidEvidence as error:
        raise internal_error(f"failed to add evidence: Invalid evidence: {error.message}") from error
    return {"hash": to_base64(found.hash())}


METHODS: Methods = {"broadcast_evidence": Method({"evidence": Kind.JSON}, broadcast_evidence)}
