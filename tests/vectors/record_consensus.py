"""Records consensus_objects.json: what our blocks, commits, sets and results hash to.

Run `python -m tests.vectors.record_consensus` after a deliberate change of format, and read the difference.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from dllm_protocol.block import Block, PartSet, block_id_of
from dllm_protocol.block_json import (
    block_id_to_json,
    block_to_json,
    commit_to_json,
    evidence_to_json,
    tx_result_to_json,
    validator_to_json,
)
from dllm_protocol.evidence import DuplicateVoteEvidence, Vote
from dllm_protocol.light_attack import LightClientAttackEvidence, evidence_of_attack
from dllm_protocol.results import Event, EventAttribute, ExecTxResult, last_results_hash
from dllm_protocol.validator_set import ValidatorSet
from tests.light_node.attacks import lunatic_fork
from tests.light_node.signed_chain import CHAIN_ID, SignedChain, signer

FILE = Path(__file__).with_name("consensus_objects.json")


def made_chain() -> SignedChain:
    """Five blocks: the first, an empty one, one with transactions over two parts, one with absent signers."""
    chain = SignedChain(("a", "b", "c", "d"))
    chain.add()
    chain.add(next_names=("a", "b", "c", "e"))
    results = [
        ExecTxResult(data=b"\x01\x02", gas_wanted=7, gas_used=5, log="words"),
        ExecTxResult(
            code=10,
            gas_wanted=-1,
            events=(Event("transfer", (EventAttribute("amount", "5"), EventAttribute("note", "x", False))),),
            codespace="accounts",
        ),
    ]
    chain.add([b"first", bytes(70_000)], results=results, changes={b"key": b"value"})
    chain.add(signing=("a", "b", "c"))
    chain.add()
    return chain


def made_evidence(chain: SignedChain) -> DuplicateVoteEvidence:
    """Two precommits of validator a at height 4: for nothing and for the block."""
    key = signer("a")
    address = next(one.address for one in chain.set_at(4).validators if one.public_key == key.public_key)
    votes = []
    for block_id in (chain.blocks[1].header.last_block_id, block_id_of(chain.blocks[4])):
        index = chain.set_at(4).index_of(address)
        assert index is not None
        unsigned = Vote(2, 4, 0, block_id, chain.blocks[4].header.time, address, index, b"")
        signature = key.sign(unsigned.sign_bytes(CHAIN_ID))
        votes.append(Vote(2, 4, 0, block_id, unsigned.timestamp, address, index, signature))
    return DuplicateVoteEvidence(votes[0], votes[1], 40, 10, chain.blocks[4].header.time)


def made_attack(chain: SignedChain) -> LightClientAttackEvidence:
    """A made-up state at height 5, seen from height 4 on."""
    fork = lunatic_fork(chain, 5)
    return evidence_of_attack(fork.light_block(5), chain.light_block(5), chain.light_block(4))


def described_block(block: Block) -> dict[str, Any]:
    """Everything that a block hashes to."""
    return {
        "block": block_to_json(block),
        "block_id": block_id_to_json(block_id_of(block)),
        "bytes_sha256": sha256(block.encode()).hexdigest(),
        "parts": [sha256(part).hexdigest() for part in PartSet.from_block(block).parts],
        "header_hex": block.header.encode().hex(),
    }


def described_set(members: ValidatorSet) -> dict[str, Any]:
    """A validator set and its next five proposers."""
    proposers = []
    turning = ValidatorSet.genesis(members.validators)
    for _ in range(5):
        proposers.append(turning.proposer.address.hex().upper())
        turning = turning.incremented(1)
    return {
        "validators": [validator_to_json(one) for one in members.validators],
        "hash": members.hash().hex().upper(),
        "proposers": proposers,
    }


def recorded() -> dict[str, Any]:
    """The whole file."""
    chain = made_chain()
    evidence = made_evidence(chain)
    attack = made_attack(chain)
    commit = chain.commits[4]
    return {
        "chain_id": CHAIN_ID,
        "blocks": [
            described_block(block if height != 5 else Block(block.header, (), (evidence,), block.last_commit))
            for height, block in chain.blocks.items()
        ],
        "commit": {
            "commit": commit_to_json(commit),
            "hash": commit.hash().hex().upper(),
            "bytes_hex": commit.encode().hex(),
            "sign_bytes_hex": [
                commit.sign_bytes(CHAIN_ID, index).hex() for index in range(len(commit.signatures))
            ],
        },
        "validator_sets": [described_set(chain.set_at(height)) for height in (1, 4)],
        "results": {
            "results": [tx_result_to_json(one) for one in chain.results[3]],
            "leaves_hex": [one.encode_hashed().hex() for one in chain.results[3]],
            "hash": last_results_hash(chain.results[3]).hex().upper(),
        },
        "evidence_hash": evidence.hash().hex().upper(),
        "attack": {
            "evidence": evidence_to_json(attack),
            "bytes_hex": attack.encode().hex(),
            "hash": attack.hash().hex().upper(),
        },
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(recorded(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
