"""The chain that commands see, over a state machine in memory: what is read and sent is, without proofs or a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

from dllm_protocol import state_keys
from dllm_protocol.address import encode_address
from dllm_protocol.encoding import Record
from dllm_protocol.offer_book import OfferBook
from dllm_protocol.params import Params
from dllm_protocol.records import Account, ModelRecord, ModelSet, Provider
from dllm_protocol.refusals import refusal_from_code
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.transaction import transaction_hash
from full_node.state_machine.state import read
from light_node.sending import Sent
from tests.full_node.state_machine.world import FEE_UDLLM, World, address

R = TypeVar("R", bound=Record)


@dataclass
class WorldReads:
    """Reads of the newest state."""

    world: World

    @property
    def client(self) -> WorldReads:
        return self

    async def provable_height(self) -> int:
        return self.world.height

    async def verified_header(self, height: int) -> Any:
        return SimpleNamespace(height=height, time=Timestamp.from_ns(self.world.time_ms * 1_000_000))

    async def record(self, kind: type[R], key: bytes, height: int | None = None) -> R | None:
        return read(self.world.reader, key, kind)

    async def account(self, owner: bytes, height: int | None = None) -> Account | None:
        return await self.record(Account, state_keys.account(owner))

    async def provider(self, provider_id: bytes, height: int | None = None) -> Provider | None:
        return await self.record(Provider, state_keys.provider(provider_id))

    async def model(self, name: str, height: int | None = None) -> ModelRecord | None:
        return await self.record(ModelRecord, state_keys.model(name))

    async def models(self, height: int | None = None) -> tuple[str, ...]:
        found = await self.record(ModelSet, state_keys.MODELS)
        return found.names if found else ()

    async def offer_book(self, name: str, epoch: int | None = None, height: int | None = None) -> OfferBook:
        return self.world.book(name)


@dataclass
class WorldSender:
    """Sends a person's transactions, each in a block of its own."""

    world: World
    name: str

    async def params(self) -> Params:
        return self.world.genesis.params

    async def fee_of(self, purse: object, actions: Sequence[Record], memo: str = "") -> int:
        return FEE_UDLLM

    async def send(self, purse: object, actions: Sequence[Record], *, memo: str = "") -> Sent:
        transaction = self.world.sign(self.name, *actions)
        (result,) = self.world.block(transaction).results
        if result.code:
            raise refusal_from_code(result.code, result.log)
        return Sent(transaction_hash(transaction.encode()), self.world.height, FEE_UDLLM, result.data)


def chain_of(world: World, name: str) -> Any:
    """What `ChatService.chain` is for a person of the world."""
    return SimpleNamespace(
        chain_id=world.chain_id,
        prefix=world.genesis.address_prefix,
        reads=WorldReads(world),
        sender=WorldSender(world, name),
        purse=SimpleNamespace(account=address(name), public_key=b"k" * 32),
    )


def opened_by(world: World, name: str) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Stands for `service.paying` and `service.watching`."""

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Any]:
        chain = chain_of(world, name)
        own = encode_address(chain.prefix, chain.purse.account)
        yield SimpleNamespace(chain=chain, chain_id=world.chain_id, address=own, play_money=False)

    return opened
