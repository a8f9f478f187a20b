"""Proved reads: a value of the state, or its absence, held against a verified header.

The state after block H has its root in header H+1. A read asks the node for the state one block below the verified
tip, so that the header that proves it is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dllm_protocol import records, state_keys
from dllm_protocol.encoding import Record
from dllm_protocol.errors import NotFound
from dllm_protocol.header import Header
from dllm_protocol.holder_book import HolderBook, check_holder_book
from dllm_protocol.ics23 import verify_membership, verify_non_membership
from dllm_protocol.offer_book import OfferBook, check_book
from light_node.answers import QueryAnswer
from light_node.client import LightClient
from light_node.errors import AnswerRefused, HeightUnavailable, SourceRefusal
from light_node.source import Source

STORE_PATH = "/store"
PROOF_BLOCK_TIMEOUT_S = 10.0
"""How long a read waits for the header that proves the newest state of a young chain."""

R = TypeVar("R", bound=Record)
B = TypeVar("B", OfferBook, HolderBook)


@dataclass(frozen=True, slots=True)
class ProvedValue:
    """A value, or its absence, with everything needed to check it again later."""

    key: bytes
    value: bytes | None
    """None: proved absent."""
    height: int
    """The state after this block."""
    header: Header
    """The verified header at height + 1, whose app_hash is the root."""
    proof: bytes
    """ICS-23 CommitmentProof."""


def check_answer(answer: QueryAnswer, key: bytes, height: int, header: Header) -> ProvedValue:
    """Hold a node's answer against what was asked and against a verified header.

    Args:
        answer: what the node said.
        key: the key that was asked.
        height: the height that was asked; `header` is one above.
        header: verified.

    Raises:
        SourceRefusal: the node refused to answer.
        AnswerRefused: it answered about another key or height, or without proof.
        ProofInvalid: the proof does not hold.
    """
    if answer.code:
        raise SourceRefusal(
            f"the node refused the query for {key!r} with code {answer.code}: {answer.log[:200]}"
        )
    if answer.height != height:
        raise AnswerRefused(f"asked for the state at height {height}, answered for {answer.height}")
    if answer.key != key:
        raise AnswerRefused(f"asked for key {key!r}, answered for {answer.key!r}")
    if header.height != height + 1:
        raise AnswerRefused(f"the state at {height} is proved by header {height + 1}, not {header.height}")
    if not answer.proof:
        raise AnswerRefused(
            f"asked for a proof of {key!r}, got a value of {len(answer.value)} bytes without one"
        )
    if answer.value:
        verify_membership(answer.proof, header.app_hash, key, answer.value)
        return ProvedValue(key, answer.value, height, header, answer.proof)
    # No record encodes to nothing that could be proved present: an empty answer claims absence.
    verify_non_membership(answer.proof, header.app_hash, key)
    return ProvedValue(key, None, height, header, answer.proof)


class ProvedReads:
    """Reads of the state by key and by name, each one proved."""

    def __init__(self, client: LightClient) -> None:
        self.client = client

    async def provable_height(self) -> int:
        """Return the newest height whose state can be proved now; pass it to reads that must agree.

        0 is the state of genesis, as long as the chain has one block.
        """
        return (await self.client.sync()).height - 1

    async def read(self, key: bytes, height: int | None = None) -> ProvedValue:
        """Return the proved value under a key, or its proved absence.

        Args:
            key: exact bytes, see `dllm_protocol.state_keys`.
            height: the state after this block; the newest provable one when None.

        Raises:
            VerificationFailed, NetworkUnreachable, TimedOut, MalformedBytes (leaves of `light_node.errors`).
        """
        asked = await self.provable_height() if height is None else height

        async def proved_by(source: Source) -> ProvedValue:
            answer = await source.abci_query(STORE_PATH, key, asked, prove=True)
            proved = asked
            if asked == 0 and answer.height > 0:
                # For the RPC, height 0 means the newest provable one, and the chain has just got its second block.
                if height is not None:
                    raise HeightUnavailable(
                        f"the state at height 0 is asked, the node has gone on to {answer.height}",
                        hint="ask again",
                    )
                proved = answer.height
                await self.client.wait_for_header(proved + 1, PROOF_BLOCK_TIMEOUT_S)
            return check_answer(answer, key, proved, await self.client.verified_header(proved + 1))

        return await self.client.ask(proved_by)

    async def record(self, kind: type[R], key: bytes, height: int | None = None) -> R | None:
        """Return the proved record under a key; None when proved absent."""
        found = await self.read(key, height)
        return None if found.value is None else kind.decode(found.value)

    async def account(self, address: bytes, height: int | None = None) -> records.Account | None:
        """Balance and sequence of an account; None when the chain has never heard of it."""
        return await self.record(records.Account, state_keys.account(address), height)

    async def provider(self, provider_id: bytes, height: int | None = None) -> records.Provider | None:
        """A registered provider."""
        return await self.record(records.Provider, state_keys.provider(provider_id), height)

    async def model(self, name: str, height: int | None = None) -> records.ModelRecord | None:
        """A registered model."""
        return await self.record(records.ModelRecord, state_keys.model(name), height)

    async def models(self, height: int | None = None) -> tuple[str, ...]:
        """Names of all models."""
        found = await self.record(records.ModelSet, state_keys.MODELS, height)
        return () if found is None else found.names

    async def session(self, session_id: bytes, height: int | None = None) -> records.Session | None:
        """A session's money and state."""
        return await self.record(records.Session, state_keys.session(session_id), height)

    async def route(self, session_id: bytes, height: int | None = None) -> records.Route | None:
        """Who serves a session."""
        return await self.record(records.Route, state_keys.route(session_id), height)

    async def reputation(
        self, provider_id: bytes, model_name: str, height: int | None = None
    ) -> records.Reputation | None:
        """Evidence about a provider for a model."""
        return await self.record(records.Reputation, state_keys.reputation(provider_id, model_name), height)

    async def community_pool(self, height: int | None = None) -> records.Pool | None:
        """What belongs to the community."""
        return await self.record(records.Pool, state_keys.COMMUNITY_POOL, height)

    async def offer_book(
        self, model_name: str, epoch: int | None = None, height: int | None = None
    ) -> OfferBook:
        """Return a frozen offer book: its hash is proved, the list is held against it.

        Args:
            model_name: the model.
            epoch: which book; the newest when None.

        Raises:
            NotFound: proved that there is no such book.
            BookRefused: the node's list is not the one whose hash was proved.
        """
        asked = await self.provable_height() if height is None else height
        head = await self._book_head(model_name, epoch, asked)
        key = state_keys.offer_list(model_name, head.epoch)
        check = partial(check_book, model=model_name, epoch=head.epoch, expected_hash=head.book_hash)
        return await self._listed(f"offer book {model_name}@{head.epoch}", key, asked, check)

    async def holder_book(
        self,
        model_name: str,
        epoch: int | None = None,
        height: int | None = None,
        *,
        known: tuple[HolderBook, bytes] | None = None,
    ) -> tuple[HolderBook, bytes]:
        """Return everything that placement decides over, and its proved hash: who serves, loads and waits.

        Args and errors as of `offer_book`, beside which it is frozen; and

        Args:
            known: what an earlier call returned; it is returned again while its hash is the proved one.
        """
        asked = await self.provable_height() if height is None else height
        head = await self._book_head(model_name, epoch, asked)
        if known is not None and known[1] == head.holders_hash:
            return known
        key = state_keys.holder_list(model_name, head.epoch)
        check = partial(
            check_holder_book, model=model_name, epoch=head.epoch, expected_hash=head.holders_hash
        )
        what = f"holder book {model_name}@{head.epoch}"
        return await self._listed(what, key, asked, check), head.holders_hash

    async def _book_head(self, model_name: str, epoch: int | None, height: int) -> records.OfferBookHead:
        """The proved record of a frozen book."""
        key = (
            state_keys.latest_offer_book(model_name)
            if epoch is None
            else state_keys.offer_book(model_name, epoch)
        )
        head = await self.record(records.OfferBookHead, key, height)
        if head is None:
            wanted = "any epoch" if epoch is None else f"epoch {epoch}"
            raise NotFound(f"model {model_name} has no offer book for {wanted}", hint="nobody offers it yet")
        if head.model != model_name or (epoch is not None and head.epoch != epoch):
            raise AnswerRefused(
                f"the book's record is for {head.model}@{head.epoch}, asked {model_name}@{epoch}"
            )
        return head

    async def _listed(self, what: str, key: bytes, height: int, check: Callable[[bytes], B]) -> B:
        """A list that any node may serve: of the same height as its hash, so that a new epoch in between is not taken
        for a lie."""

        async def listed_by(source: Source) -> B:
            answer = await source.abci_query(STORE_PATH, key, height, prove=False)
            if answer.code or not answer.value:
                raise SourceRefusal(
                    f"the node does not serve {what}: {answer.log[:200]}",
                    hint="old books are not kept; ask for the newest",
                )
            return check(answer.value)

        return await self.client.ask(listed_by)
