"""What an account has locked behind its providers and models, proved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from dllm_chat.cli.validators import time_text
from dllm_chat.sanitize import clean_line
from dllm_chat.session.conversation import Chain
from dllm_protocol import state_keys
from dllm_protocol.address import PROVIDER_SUFFIX, encode_address
from dllm_protocol.records import Provider, ProviderSet, Unbonding
from dllm_protocol.units import format_dllm

MODELS_AT_ONCE = 16
"""The chain keeps no list of an owner's models: all are looked at, so many side by side."""


@dataclass(frozen=True, slots=True)
class Bond:
    """One bond of the account's."""

    kind: str
    """``provider`` or ``model``."""
    name: str
    """The provider's address, or the model's name."""
    bond_udllm: int
    unbonding: tuple[Unbonding, ...] = ()
    """What is on its way back; it still belongs to the bond, and can be slashed."""


async def bonds_of(chain: Chain, height: int) -> list[Bond]:
    """Every bond of the purse's account that is not paid back, in the state after ``height``."""
    provided = [
        Bond("provider", encode_address(chain.prefix + PROVIDER_SUFFIX, id_), one.bond_udllm, one.unbonding)
        for id_, one in await own_providers(chain, height)
    ]
    return provided + await _model_bonds(chain, height)


async def own_providers(chain: Chain, height: int) -> list[tuple[bytes, Provider]]:
    """The account's providers with a bond, or with bond on its way back: id and record."""
    listed = await chain.reads.record(ProviderSet, state_keys.providers_of(chain.purse.account), height)
    found = []
    for provider_id in listed.providers if listed else ():
        provider = await chain.reads.provider(provider_id, height)
        if provider is not None and (provider.bond_udllm or provider.unbonding):
            found.append((provider_id, provider))
    return found


async def _model_bonds(chain: Chain, height: int) -> list[Bond]:
    names = await chain.reads.models(height)
    found = []
    for begin in range(0, len(names), MODELS_AT_ONCE):
        some = names[begin : begin + MODELS_AT_ONCE]
        models = await asyncio.gather(*(chain.reads.model(name, height) for name in some))
        found += [
            Bond("model", clean_line(name, 64), one.bond_udllm)
            for name, one in zip(some, models, strict=True)
            if one is not None and one.owner == chain.purse.account and one.bond_udllm
        ]
    return found


def bonds_data(bonds: list[Bond]) -> dict[str, Any]:
    """Bonds in JSON: what stands, what is on its way back, and each by itself."""
    listed = [
        {
            "kind": one.kind,
            "name": one.name,
            "bond_udllm": one.bond_udllm,
            "unbonding": [
                {"amount_udllm": part.amount_udllm, "release_time_ms": part.release_time_ms}
                for part in one.unbonding
            ],
        }
        for one in bonds
    ]
    return {
        "bonded_udllm": sum(one.bond_udllm for one in bonds),
        "unbonding_udllm": sum(part.amount_udllm for one in bonds for part in one.unbonding),
        "bonds": listed,
    }


def bonds_text(bonds: list[Bond]) -> dict[str, list[str]]:
    """The same for people: nothing where there is none."""
    standing = [
        f"{format_dllm(one.bond_udllm)} behind {one.kind} {one.name}" for one in bonds if one.bond_udllm
    ]
    leaving = [
        f"{format_dllm(part.amount_udllm)} from {time_text(part.release_time_ms)}, "
        f"with: dllm worker leave {one.name}"
        for one in bonds
        for part in one.unbonding
    ]
    return {"bonds": standing, "on its way back": leaving}
