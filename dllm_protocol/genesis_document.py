"""A chain's beginning as CometBFT writes it: `genesis.json`, and the answer to the call `genesis`."""

from __future__ import annotations

from typing import Any

from dllm_protocol.consensus_params import BLOCK_MAX_BYTES_DEFAULT, ConsensusParams, HashedParams
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import address_of

NS_PER_MS = 1_000_000


def consensus_params_of(genesis: Genesis) -> ConsensusParams:
    """CometBFT's parameters as this genesis fixes them; the chain never changes them.

    Evidence expires by CometBFT's rule when it is too old in time *and* in blocks. An idle chain makes a block each
    heartbeat, a busy one more: with as many blocks as heartbeats in the evidence age, time alone decides on both.
    """
    params = genesis.params
    return ConsensusParams(
        block=HashedParams(params.block_max_bytes or BLOCK_MAX_BYTES_DEFAULT),
        evidence_max_age_ns=params.evidence_age_ms * NS_PER_MS,
        evidence_max_age_blocks=max(1, params.evidence_age_ms // max(1, params.heartbeat_ms)),
    )


def genesis_document(genesis: Genesis, params: ConsensusParams) -> dict[str, Any]:
    """CometBFT's genesis document; app_state holds the canonical genesis record, whose hash ends the chain id."""
    return {
        "genesis_time": Timestamp.from_ns(genesis.genesis_time_ms * NS_PER_MS).to_rfc3339(),
        "chain_id": chain_id_of(genesis),
        "initial_height": "1",
        "consensus_params": params.to_json(),
        "validators": [
            {
                "address": to_hex(address_of(one.public_key)),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": to_base64(one.public_key)},
                "power": str(one.power),
                "name": "",
            }
            for one in genesis.validators
        ],
        "app_hash": "",
        "app_state": {"genesis": to_base64(genesis.encode())},
    }
