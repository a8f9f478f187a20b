"""Writing reputation."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import RaterQuota
from dllm_protocol.reputation import with_rating
from full_node.state_machine.context import ActionContext
from full_node.state_machine.reputation import view


def rate(
    ctx: ActionContext, provider_id: bytes, model_name: str, *, paid_udllm: int, score_permille: int
) -> int:
    """Add the sender's rating of a provider, weighted by what it paid; return the weight that counted.

    A payer's weight for a provider is capped per epoch, so that paying oneself through a friend is dear.
    """
    left = view.quota_left(ctx.state, provider_id, model_name, ctx.sender, ctx.scope)
    weight = min(paid_udllm // ctx.params.reputation_weight_udllm, left)
    if weight == 0:
        return 0
    evidence = view.evidence(ctx.state, provider_id, model_name, ctx.scope)
    rated = with_rating(evidence, weight, score_permille)
    ctx.state.write(state_keys.reputation(provider_id, model_name), rated)
    used = ctx.params.reputation_rater_cap - left + weight
    quota = RaterQuota(ctx.epoch, used)
    ctx.state.write(state_keys.rater_quota(provider_id, model_name, ctx.sender), quota)
    return weight
