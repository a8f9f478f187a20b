"""Where a chain begins [format].

The chain id is ``<name>-<first 8 hex digits of the genesis hash>``: two chains that differ anywhere at genesis
have different ids, so nothing that is signed for one is valid on the other.
"""

from __future__ import annotations

from dllm_protocol.encoding import (
    ADDRESS,
    PUBLIC_KEY,
    U64,
    UDLLM,
    FormatVersion,
    ListOf,
    Nested,
    Record,
    Text,
    record,
    wire,
)
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.params import Params
from dllm_protocol.staking import power_of_stake

GENESIS_VERSION = 1
_PREFIX = Text(16, frozenset("abcdefghijklmnopqrstuvwxyz"), minimum=1)
_CHAIN_NAME = Text(32, frozenset("abcdefghijklmnopqrstuvwxyz0123456789-"), minimum=1)


@record
class GenesisAccount(Record):
    """An account that exists from the start."""

    address: bytes = wire(1, ADDRESS)
    balance_udllm: int = wire(2, UDLLM)


@record
class GenesisModel(Record):
    """A model that is registered from the start; its bond comes out of the owner's balance."""

    owner: bytes = wire(1, ADDRESS)
    manifest: Manifest = wire(2, Nested(Manifest))


@record
class GenesisValidator(Record):
    """A validator of the first set; its stake comes out of the owner's balance."""

    public_key: bytes = wire(1, PUBLIC_KEY)
    owner: bytes = wire(2, ADDRESS)
    stake_udllm: int = wire(3, UDLLM)

    @property
    def power(self) -> int:
        """Voting power in the first set."""
        return power_of_stake(self.stake_udllm)


@record
class Genesis(Record):
    """Everything that a chain starts from."""

    version: int = wire(1, FormatVersion(GENESIS_VERSION, minimum=1))
    name: str = wire(2, _CHAIN_NAME)
    genesis_time_ms: int = wire(3, U64)
    address_prefix: str = wire(4, _PREFIX)
    """Bech32 prefix of addresses: ``dllm`` on networks, ``local`` on an embedded one."""
    params: Params = wire(5, Nested(Params))
    accounts: tuple[GenesisAccount, ...] = wire(6, ListOf(Nested(GenesisAccount), 1 << 20))
    """Ascending by address."""
    models: tuple[GenesisModel, ...] = wire(7, ListOf(Nested(GenesisModel), 1024))
    """Ascending by name."""
    validators: tuple[GenesisValidator, ...] = wire(8, ListOf(Nested(GenesisValidator), 10_000, minimum=1))
    nonce: bytes = wire(9, PUBLIC_KEY)
    """32 random bytes, so that no two chains are alike by accident."""


def genesis_hash(genesis: Genesis) -> bytes:
    """Identity of a chain's beginning (32 bytes)."""
    return tagged_hash(Tag.GENESIS, genesis.encode())


def chain_id_of(genesis: Genesis) -> str:
    """The chain id that this genesis gives."""
    return f"{genesis.name}-{genesis_hash(genesis).hex()[:8]}"
