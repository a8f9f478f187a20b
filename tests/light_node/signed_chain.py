"""A chain that a test signs itself, and a full node that serves it, honest unless told what to lie about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from dllm_protocol import jmt
from dllm_protocol.block import Block, LightBlock, SignedHeader, block_id_of, data_hash, tx_hash, tx_proof
from dllm_protocol.commit import (
    ZERO_BLOCK_ID,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    VoteType,
    median_time,
    vote_sign_bytes,
)
from dllm_protocol.consensus_params import HashedParams
from dllm_protocol.evidence import Evidence, evidence_hash
from dllm_protocol.header import Header
from dllm_protocol.ics23_codec import encode_commitment_proof
from dllm_protocol.results import ExecTxResult, last_results_hash
from dllm_protocol.signing import SeedSigner
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet, address_of
from light_node.answers import BroadcastAnswer, QueryAnswer, SourceStatus, TxAnswer
from light_node.errors import HeightUnavailable, SourceUnreachable
from tests.dllm_protocol.reference_tree import reference_absence, reference_existence

GENESIS_TIME = Timestamp.from_rfc3339("2026-01-01T00:00:00Z")
BLOCK_MS = 1000
CHAIN_ID = "signed-chain"


def signer(name: str) -> SeedSigner:
    """A key that is the same in every run."""
    return SeedSigner(sha256(f"test key {name.partition(':')[0]}".encode()).digest())


def validator_set(names: Sequence[str], power: int = 10) -> ValidatorSet:
    """Validators of equal power by name; `name:25` has a power of its own."""
    return ValidatorSet(tuple(Validator(signer(name).public_key, _power_of(name, power)) for name in names))


def _power_of(name: str, otherwise: int) -> int:
    _, _, power = name.partition(":")
    return int(power) if power else otherwise


class ManualClock:
    """A clock that moves when a test moves it, or when somebody sleeps."""

    def __init__(self, now: Timestamp) -> None:
        self._now = now
        self._slept_s = 0.0

    def now(self) -> Timestamp:
        return self._now

    def advance_s(self, seconds: float) -> None:
        self._now = self._now.add_ns(int(seconds * 1e9))
        self._slept_s += seconds

    def monotonic_s(self) -> float:
        return self._slept_s

    async def sleep(self, seconds: float) -> None:
        self.advance_s(seconds)
        await asyncio.sleep(0)


class SignedChain:
    """Blocks, commits, validators, states and results by height, all consistent."""

    def __init__(self, names: Sequence[str] = ("a",), chain_id: str = CHAIN_ID) -> None:
        self.chain_id = chain_id
        self.blocks: dict[int, Block] = {}
        self.commits: dict[int, Commit] = {}
        self.validators: dict[int, Sequence[str]] = {1: tuple(names), 2: tuple(names)}
        self.states: dict[int, dict[bytes, bytes]] = {0: {b"genesis": b"seed"}}
        self.results: dict[int, tuple[ExecTxResult, ...]] = {0: ()}

    @property
    def height(self) -> int:
        return len(self.blocks)

    def set_at(self, height: int) -> ValidatorSet:
        return validator_set(self.validators[height])

    def add(
        self,
        txs: Sequence[bytes] = (),
        *,
        results: Sequence[ExecTxResult] | None = None,
        changes: Mapping[bytes, bytes] | None = None,
        next_names: Sequence[str] | None = None,
        signing: Sequence[str] | None = None,
        round_: int = 0,
        lie: Mapping[str, object] | None = None,
    ) -> Block:
        """Make and sign the next block.

        Args:
            txs: its transactions.
            results: what came of them (success by default).
            changes: keys written by this block.
            next_names: the validators from two heights on.
            signing: who signs it (all by default).
            round_: the round in which it is signed.
            lie: header fields as a forger wants them.
        """
        height = self.height + 1
        self.validators[height + 1] = tuple(self.validators.get(height + 1, self.validators[height]))
        self.validators[height + 2] = tuple(next_names or self.validators[height + 1])
        before = self.blocks.get(height - 1)
        last_commit = self.commits[height - 1] if before else Commit.empty()
        header = Header(
            chain_id=self.chain_id,
            height=height,
            time=median_time(last_commit, self.set_at(height - 1)) if before else GENESIS_TIME,
            last_block_id=block_id_of(before) if before else ZERO_BLOCK_ID,
            last_commit_hash=last_commit.hash(),
            data_hash=data_hash(txs),
            validators_hash=self.set_at(height).hash(),
            next_validators_hash=self.set_at(height + 1).hash(),
            consensus_hash=HashedParams().hash(),
            app_hash=jmt.root_of(self.states[height - 1]),
            last_results_hash=last_results_hash(self.results[height - 1]),
            evidence_hash=evidence_hash(()),
            proposer_address=self.set_at(height).validators[0].address,
        )
        block = Block(replace(header, **(lie or {})), tuple(txs), (), last_commit)
        self.blocks[height] = block
        self.commits[height] = self.signed(block, signing, round_)
        self.states[height] = self.states[height - 1] | dict(changes or {})
        self.results[height] = tuple(results) if results is not None else tuple(ExecTxResult() for _ in txs)
        return block

    def grow(self, count: int) -> None:
        for _ in range(count):
            self.add()

    def forked(self, height: int) -> SignedChain:
        """A chain of its own that has this one's blocks below a height."""
        made = SignedChain(self.validators[1], self.chain_id)
        made.blocks = {at: block for at, block in self.blocks.items() if at < height}
        made.commits = {at: commit for at, commit in self.commits.items() if at < height}
        made.validators = {at: names for at, names in self.validators.items() if at <= height + 1}
        made.states = {at: state for at, state in self.states.items() if at < height}
        made.results = {at: results for at, results in self.results.items() if at < height}
        return made

    def signed(self, block: Block, signing: Sequence[str] | None = None, round_: int = 0) -> Commit:
        """The commit of the height's validators over a block; those not signing are absent."""
        height = block.header.height
        names = {address_of(signer(name).public_key): name for name in self.validators[height]}
        at = block.header.time.add_ms(BLOCK_MS)
        return signed_commit(
            self.chain_id,
            block_id_of(block),
            height,
            [names[one.address] for one in self.set_at(height).validators],
            at,
            signing,
            round_,
        )

    def light_block(self, height: int) -> LightBlock:
        return LightBlock(self.signed_header(height), self.set_at(height), self.set_at(height + 1))

    def signed_header(self, height: int) -> SignedHeader:
        return SignedHeader(self.blocks[height].header, self.commits[height])


def signed_commit(
    chain_id: str,
    block_id: BlockID,
    height: int,
    ordered: Sequence[str],
    at: Timestamp,
    signing: Sequence[str] | None = None,
    round_: int = 0,
) -> Commit:
    """A commit by validators in the set's order; those not in `signing` are absent."""
    entries = []
    for index, name in enumerate(ordered):
        if signing is not None and name not in signing:
            entries.append(CommitSig.absent())
            continue
        moment = at.add_ms(index)
        message = vote_sign_bytes(chain_id, VoteType.PRECOMMIT, height, round_, block_id, moment)
        key = signer(name)
        entries.append(CommitSig(BlockIDFlag.COMMIT, address_of(key.public_key), moment, key.sign(message)))
    return Commit(height, round_, block_id, tuple(entries))


class ChainSource:
    """A full node that serves a SignedChain; tests override single answers to make it lie."""

    def __init__(self, chain: SignedChain, name: str = "node") -> None:
        self.chain = chain
        self._name = name
        self.offline = False
        self.headers_asked: list[int] = []
        self.sent: list[bytes] = []
        self.known_txs = True
        self.evidence: list[Evidence] = []
        self.serve_height: int | None = None

    @property
    def name(self) -> str:
        return self._name

    def _tip(self) -> int:
        if self.offline:
            raise SourceUnreachable(f"cannot talk to {self.name}")
        return self.chain.height if self.serve_height is None else self.serve_height

    def _at(self, height: int | None) -> int:
        tip = self._tip()
        asked = tip if height is None else height
        if not 1 <= asked <= tip:
            raise HeightUnavailable(f"height {asked} must be less than or equal to {tip}")
        return asked

    async def status(self) -> SourceStatus:
        tip = self._tip()
        return SourceStatus(self.chain.chain_id, tip, self.chain.blocks[tip].header.time, 1, False)

    async def signed_header(self, height: int | None) -> SignedHeader:
        at = self._at(height)
        self.headers_asked.append(at)
        return self.chain.signed_header(at)

    async def validators(self, height: int) -> ValidatorSet:
        self._tip()
        return self.chain.set_at(height)

    async def block(self, height: int) -> tuple[BlockID, Block]:
        block = self.chain.blocks[self._at(height)]
        return block_id_of(block), block

    async def block_results(self, height: int) -> tuple[ExecTxResult, ...]:
        return self.chain.results[self._at(height)]

    async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
        at = self._at(height) if height else self._tip() - 1
        state = self.chain.states[at]
        if path != "/store":
            return QueryAnswer(1, f"nothing is served at {path}", at, data, b"", b"")
        value = state.get(data)
        if value is None:
            proof = encode_commitment_proof(reference_absence(state, data))
        else:
            proof = encode_commitment_proof(reference_existence(state, data))
        return QueryAnswer(0, "", at, data, value or b"", proof if prove else b"")

    async def broadcast_tx_sync(self, tx: bytes) -> BroadcastAnswer:
        self._tip()
        self.sent.append(tx)
        return BroadcastAnswer(0, "", tx_hash(tx))

    async def broadcast_evidence(self, evidence: Evidence) -> bytes:
        self._tip()
        self.evidence.append(evidence)
        return evidence.hash()

    async def tx(self, wanted: bytes) -> TxAnswer | None:
        if not self.known_txs:
            return None
        for height in range(1, self._tip() + 1):
            txs = self.chain.blocks[height].txs
            for index, one in enumerate(txs):
                if tx_hash(one) == wanted:
                    result = self.chain.results[height][index]
                    return TxAnswer(wanted, height, index, one, result, tx_proof(txs, index))
        return None

    async def tx_search(self, query: str, page: int, per_page: int) -> tuple[tuple[TxAnswer, ...], int]:
        self._tip()
        return (), 0

    async def new_heights(self) -> AsyncIterator[int]:
        yield self._tip()

    async def close(self) -> None:
        self.offline = True


def forged(block: Block, **changes: object) -> Block:
    """A block with another header, whose commit no longer fits."""
    return replace(block, header=replace(block.header, **changes))
