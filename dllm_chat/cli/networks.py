"""What is known of the network in use."""

from __future__ import annotations

from typing import Any

from dllm_chat.session.service import ChatService
from dllm_protocol.errors import VerificationFailed


async def status_data(service: ChatService) -> dict[str, Any]:
    """The light node's view, and the validators that the verified header names."""
    light = service.chain.reads.client
    fresh = service.freshness()
    header = await light.verified_header(fresh.height)
    validators = await light.primary.validators(header.height)
    if validators.hash() != header.validators_hash:
        raise VerificationFailed(
            f"the node lists validators that hash to {validators.hash().hex()}, "
            f"header {header.height} names {header.validators_hash.hex()}"
        )
    return {
        "chain_id": service.chain_id,
        "badge": service.badge,
        "play_money": service.badge == "LOCAL",
        "height": fresh.height,
        "hash": fresh.hash.hex().upper(),
        "time": str(header.time),
        "state": str(fresh.state),
        "lag_blocks": fresh.lag_blocks,
        "age_s": fresh.root_age_s,
        "trust_expires_in_s": fresh.expires_in_s,
        "problem": fresh.problem,
        "source": light.primary.name,
        "witnesses": [witness.name for witness in light.witnesses],
        "validators": [
            {"address": one.address.hex().upper(), "power": one.voting_power} for one in validators.validators
        ],
    }
