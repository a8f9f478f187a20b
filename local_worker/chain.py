"""The worker's own view of the chain: every record proved by its own light node, every transaction followed.

`Chain` is all that the rest of the worker knows of it; `LightChain` is the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from dllm_protocol import records, state_keys
from dllm_protocol.address import address_of
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.encoding import Record
from dllm_protocol.errors import DllmError, NotFound
from dllm_protocol.holder_book import HolderBook
from dllm_protocol.params import Params
from dllm_protocol.refusals import SequenceGap
from dllm_protocol.signing import Signer
from dllm_protocol.transaction import Transaction, TransactionBody, sign_transaction
from light_node.bundle_trust import trust_options_of
from light_node.client import LightClient
from light_node.clock import SystemClock
from light_node.queries import ProvedReads
from light_node.sending import Sender
from light_node.source import RpcSource
from light_node.trust_store import TrustStore

GAP_TRIES = 5
GAP_PAUSE_S = 0.2


class Chain(Protocol):
    """What the worker asks of a chain. Records are proved; None is proved absence."""

    chain_id: str
    params: Params
    address_prefix: str
    genesis_time_ms: int

    async def session(self, session: bytes) -> tuple[records.Session, records.Route] | None:
        """A session and its route, of one height."""
        ...

    async def session_record(self, session: bytes) -> records.Session | None:
        """A session without its route."""
        ...

    async def provider(self, provider: bytes) -> records.Provider | None: ...

    async def model(self, name: str) -> records.ModelRecord | None: ...

    async def model_names(self) -> tuple[str, ...]: ...

    async def offer(self, model: str, provider: bytes) -> records.Offer | None: ...

    async def holding(self, model: str, provider: bytes) -> records.Holding | None: ...

    async def book_head(self, model: str) -> records.OfferBookHead | None:
        """The record of the newest books of a model; None before the first."""
        ...

    async def holder_book(self, model: str) -> HolderBook | None:
        """The newest holder book; None before the first."""
        ...

    async def is_in_book(self, model: str, provider: bytes) -> bool:
        """Whether a provider stands in the model's newest frozen offer book."""
        ...

    async def account(self, address: bytes) -> records.Account | None: ...

    async def time_ms(self) -> int:
        """Time of the newest verified block."""
        ...

    async def fee_of(self, actions: Sequence[Record]) -> int:
        """What a transaction of the operator's with these actions costs, in udllm."""
        ...

    async def send(self, actions: Sequence[Record]) -> None:
        """Send actions of the operator's in one transaction; return when their success is proved.

        Raises:
            TransactionRefused: the leaf that names why.
            TransactionImpossible, OutcomeUnknown, NetworkUnreachable, VerificationFailed
        """
        ...

    def new_heights(self) -> AsyncIterator[int]:
        """Heights as the node announces them; ends with an error when the connection does."""
        ...

    async def close(self) -> None: ...


class Operator:
    """The worker's own account as a `light_node.sending.TransactionSigner`."""

    def __init__(self, key: Signer) -> None:
        self._key = key
        self.public_key = key.public_key
        self.account = address_of(key.public_key)

    def sign(self, body: TransactionBody) -> Transaction:
        """Sign a body with the operator's key."""
        return sign_transaction(self._key, body)


class LightChain:
    """The chain of a bundle, asked at one node and believed through headers."""

    def __init__(
        self, bundle: SignedBundle, client: LightClient, operator: Signer, *, owns_client: bool = True
    ) -> None:
        genesis = bundle.bundle.genesis
        self.chain_id = bundle.bundle.chain_id
        # The chain id is a hash of the genesis, so parameters that are fixed there need no further proof.
        self.params = genesis.params
        self.address_prefix = genesis.address_prefix
        self.genesis_time_ms = genesis.genesis_time_ms
        self._bundle = bundle
        self._client = client
        self._owns_client = owns_client
        self._operator = Operator(operator)
        self._reads = ProvedReads(client)
        self._sender = Sender(self.chain_id, self._reads, self.params)
        self._sending = asyncio.Lock()
        self._holders: tuple[HolderBook, bytes] | None = None

    @classmethod
    def open(
        cls, bundle: SignedBundle, operator: Signer, store_path: Path, *, sources: Sequence[str] = ()
    ) -> Self:
        """Prepare a light node; nothing is asked before the first call.

        Args:
            sources: nodes to ask, the first one as primary; the bundle's where there are none.
        """
        about = bundle.bundle
        primary, *others = [RpcSource(url) for url in (*(sources or about.sources), *about.witnesses)]
        client = LightClient(
            about.chain_id,
            trust_options_of(about),
            TrustStore(store_path, about.chain_id),
            primary,
            others,
            clock=SystemClock(),
        )
        return cls(bundle, client, operator)

    def beside(self, operator: Signer) -> LightChain:
        """The same chain through the same light node, for another operator; of no use once this one is closed."""
        return LightChain(self._bundle, self._client, operator, owns_client=False)

    async def session(self, session: bytes) -> tuple[records.Session, records.Route] | None:
        """See `Chain`."""
        height = await self._reads.provable_height()
        found = await self._reads.session(session, height)
        if found is None:
            return None
        route = await self._reads.route(session, height)
        return None if route is None else (found, route)

    async def session_record(self, session: bytes) -> records.Session | None:
        """See `Chain`."""
        return await self._reads.session(session)

    async def provider(self, provider: bytes) -> records.Provider | None:
        """See `Chain`."""
        return await self._reads.provider(provider)

    async def model(self, name: str) -> records.ModelRecord | None:
        """See `Chain`."""
        return await self._reads.model(name)

    async def model_names(self) -> tuple[str, ...]:
        """See `Chain`."""
        return await self._reads.models()

    async def offer(self, model: str, provider: bytes) -> records.Offer | None:
        """See `Chain`."""
        return await self._reads.record(records.Offer, state_keys.offer(model, provider))

    async def holding(self, model: str, provider: bytes) -> records.Holding | None:
        """See `Chain`."""
        return await self._reads.record(records.Holding, state_keys.holding(model, provider))

    async def book_head(self, model: str) -> records.OfferBookHead | None:
        """See `Chain`."""
        return await self._reads.record(records.OfferBookHead, state_keys.latest_offer_book(model))

    async def holder_book(self, model: str) -> HolderBook | None:
        """See `Chain`; a list that has not changed is not fetched again."""
        known = self._holders if self._holders is not None and self._holders[0].model == model else None
        try:
            self._holders = await self._reads.holder_book(model, known=known)
        except NotFound:
            return None
        return self._holders[0]

    async def is_in_book(self, model: str, provider: bytes) -> bool:
        """See `Chain`."""
        try:
            book = await self._reads.offer_book(model)
        except NotFound:
            return False
        return any(entry.provider == provider for entry in book.entries)

    async def account(self, address: bytes) -> records.Account | None:
        """See `Chain`."""
        return await self._reads.account(address)

    async def time_ms(self) -> int:
        """See `Chain`."""
        return (await self._client.sync()).time.to_ms()

    async def fee_of(self, actions: Sequence[Record]) -> int:
        """See `Chain`."""
        return await self._sender.fee_of(self._operator, actions)

    async def send(self, actions: Sequence[Record]) -> None:
        """See `Chain`."""
        async with self._sending:
            for attempt in range(1, GAP_TRIES + 1):
                try:
                    await self._sender.send(self._operator, actions)
                    return
                except SequenceGap:
                    # The node lags behind what it proved. Should it lie and have both copies included, that costs
                    # a fee: a worker's actions say the same twice.
                    if attempt == GAP_TRIES:
                        raise
                    await asyncio.sleep(GAP_PAUSE_S * attempt)

    def new_heights(self) -> AsyncIterator[int]:
        """See `Chain`."""
        return self._client.primary.new_heights()

    async def close(self) -> None:
        """See `Chain`."""
        if self._owns_client:
            await self._client.close()


async def wait_for_chain(chain: Chain, timeout_s: float) -> None:
    """Wait until the chain answers: a node that was started together with the worker needs a moment.

    Raises:
        DllmError: what it last failed with.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            await chain.time_ms()
            return
        except DllmError:
            if asyncio.get_running_loop().time() >= deadline:
                raise
        await asyncio.sleep(0.2)
