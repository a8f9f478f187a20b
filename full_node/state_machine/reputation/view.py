"""Reading reputation, brought to the present."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import RaterQuota, Reputation
from dllm_protocol.reputation import NO_EVIDENCE, faded
from full_node.state_machine.context import Scope
from full_node.state_machine.state import StateReader, read


def evidence(state: StateReader, provider_id: bytes, model_name: str, scope: Scope) -> Reputation:
    """A provider's evidence for a model, faded to the block's epoch."""
    stored = read(state, state_keys.reputation(provider_id, model_name), Reputation)
    return faded(stored or NO_EVIDENCE, scope.epoch, scope.params.reputation_decay)


def quota_left(state: StateReader, provider_id: bytes, model_name: str, payer: bytes, scope: Scope) -> int:
    """Units of evidence that a payer may still give a provider in the block's epoch."""
    used = read(state, state_keys.rater_quota(provider_id, model_name, payer), RaterQuota)
    spent = used.weight if used is not None and used.epoch == scope.epoch else 0
    return max(0, scope.params.reputation_rater_cap - spent)
