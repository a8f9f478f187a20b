"""What the next block depends on besides transactions, and how it moves on from block to block.

As CometBFT v0.38's `state.State`: results of block H (app hash, results hash) stand in header H+1; validator
updates of block H change the set of H+2, whose hash is header H+1's next_validators_hash.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dllm_protocol import merkle
from dllm_protocol.block import Block, data_hash
from dllm_protocol.block_json import validator_from_json, validator_to_json
from dllm_protocol.commit import ZERO_BLOCK_ID, BlockID, Commit, median_time
from dllm_protocol.consensus_params import ConsensusParams
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.evidence import evidence_hash
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.header import Header
from dllm_protocol.results import ExecTxResult, last_results_hash
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet
from full_node.state.page import StoreDamaged

META_NAME = "chain_state"
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ChainState:
    """The chain after its newest block.

    Attributes:
        chain_id: from genesis.
        height: newest block; 0 before the first.
        time: the newest header's time; genesis time before the first.
        block_id: the newest block's.
        last_commit: the commit over the newest block, which the next one carries; empty before the first.
        last_validators: signed the newest block.
        validators: sign the next block.
        next_validators: sign the one after.
        app_hash: state root after the newest block; in the next header.
        results_hash: over the newest block's results; in the next header.
        proposed_app_hash: what the newest header says, i.e. the root one block before; empty at genesis.
        app_version: the rules that made the newest state; in the next header.
    """

    chain_id: str
    height: int
    time: Timestamp
    block_id: BlockID
    last_commit: Commit
    last_validators: ValidatorSet
    validators: ValidatorSet
    next_validators: ValidatorSet
    app_hash: bytes
    results_hash: bytes
    proposed_app_hash: bytes
    app_version: int = 0

    @property
    def needs_proof_block(self) -> bool:
        """Whether the newest state root stands in no header yet, or no state of a block can be proved at all.

        A young chain makes two blocks at once: reads ask for the state after block H and want header H + 1, so
        before block 2 nothing could be proved and the first transaction would wait for a heartbeat.
        """
        return self.height < 2 or self.app_hash != self.proposed_app_hash

    @property
    def voted_at(self) -> Timestamp:
        """When the newest block was signed: the time that the next header will carry."""
        return median_time(self.last_commit, self.last_validators) if self.height else self.time

    def make_block(self, txs: Sequence[bytes], params: ConsensusParams, proposer: bytes) -> Block:
        """The next block over these transactions; its time is BFT time."""
        header = Header(
            chain_id=self.chain_id,
            height=self.height + 1,
            time=self.voted_at,
            last_block_id=self.block_id,
            last_commit_hash=self.last_commit.hash(),
            data_hash=data_hash(txs),
            validators_hash=self.validators.hash(),
            next_validators_hash=self.next_validators.hash(),
            consensus_hash=params.hash(),
            app_hash=self.app_hash,
            last_results_hash=self.results_hash,
            evidence_hash=evidence_hash(()),
            proposer_address=proposer,
            app_version=self.app_version,
        )
        return Block(header, tuple(txs), (), self.last_commit)

    def after(
        self,
        block: Block,
        block_id: BlockID,
        commit: Commit,
        app_hash: bytes,
        results: Sequence[ExecTxResult],
        updates: Sequence[Validator],
        app_version: int | None = None,
    ) -> ChainState:
        """The chain after one more block; `app_version` where its rules are others from here on.

        Raises:
            InvalidBlock: impossible validator updates.
        """
        return replace(
            self,
            height=block.header.height,
            time=block.header.time,
            block_id=block_id,
            last_commit=commit,
            last_validators=self.validators,
            validators=self.next_validators,
            next_validators=self.next_validators.with_updates(updates).incremented(1),
            app_hash=app_hash,
            results_hash=last_results_hash(results),
            proposed_app_hash=block.header.app_hash,
            app_version=self.app_version if app_version is None else app_version,
        )

    def encode(self) -> bytes:
        """JSON for the store."""
        document = {
            "chain_id": self.chain_id,
            "height": self.height,
            "time_ns": self.time.to_ns(),
            "block_id": _text(self.block_id.encode()),
            "last_commit": _text(self.last_commit.encode()),
            "last_validators": validator_set_document(self.last_validators),
            "validators": validator_set_document(self.validators),
            "next_validators": validator_set_document(self.next_validators),
            "app_hash": _text(self.app_hash),
            "results_hash": _text(self.results_hash),
            "proposed_app_hash": _text(self.proposed_app_hash),
            "app_version": self.app_version,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> ChainState:
        """Reads what `encode` wrote. Raises StoreDamaged."""
        try:
            document = json.loads(data)
            return cls(
                chain_id=document["chain_id"],
                height=document["height"],
                time=Timestamp.from_ns(document["time_ns"]),
                block_id=BlockID.decode(_octets(document["block_id"])),
                last_commit=Commit.decode(_octets(document["last_commit"])),
                last_validators=validator_set_of(document["last_validators"]),
                validators=validator_set_of(document["validators"]),
                next_validators=validator_set_of(document["next_validators"]),
                app_hash=_octets(document["app_hash"]),
                results_hash=_octets(document["results_hash"]),
                proposed_app_hash=_octets(document["proposed_app_hash"]),
                app_version=document["app_version"],
            )
        except (ValueError, KeyError, TypeError, RecursionError, MalformedBytes) as error:
            raise StoreDamaged(f"the stored chain state cannot be read: {error}") from error


def genesis_state(genesis: Genesis, app_hash: bytes, app_version: int = 0) -> ChainState:
    """The chain before its first block, over the root of the first state and under the rules of `app_version`."""
    members = ValidatorSet.genesis(Validator(one.public_key, one.power) for one in genesis.validators)
    return ChainState(
        chain_id=chain_id_of(genesis),
        height=0,
        time=Timestamp.from_ns(genesis.genesis_time_ms * NS_PER_MS),
        block_id=ZERO_BLOCK_ID,
        last_commit=Commit.empty(),
        last_validators=members,
        validators=members,
        next_validators=members.incremented(1),
        app_hash=app_hash,
        results_hash=merkle.EMPTY_ROOT,
        proposed_app_hash=b"",
        app_version=app_version,
    )


def validator_set_document(members: ValidatorSet) -> dict[str, Any]:
    """A validator set as JSON, with proposer and priorities."""
    return {
        "proposer": _text(members.proposer_address),
        "validators": [validator_to_json(one) for one in members.validators],
    }


def validator_set_of(document: dict[str, Any]) -> ValidatorSet:
    """Reads `validator_set_document`."""
    members = tuple(validator_from_json(one) for one in document["validators"])
    return ValidatorSet(members, _octets(document["proposer"]))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
