"""Offers and providers, proved, in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dllm_chat.sanitize import clean_line
from dllm_chat.session.conversation import Chain
from dllm_protocol import records, state_keys
from dllm_protocol.address import PROVIDER_SUFFIX, decode_address, encode_address
from dllm_protocol.errors import NotFound
from dllm_protocol.pricing import RowPrices
from dllm_protocol.reputation import NO_EVIDENCE, UNIT, score_ppm


async def offers_of_models(chain: Chain, model: str | None) -> tuple[int, list[dict[str, Any]]]:
    """Every offer of the frozen books, of one model or of all; and the height at which they were proved.

    Raises:
        NotFound: there is no such model.
    """
    height = await chain.reads.provable_height()
    names = await chain.reads.models(height)
    if model is not None and model not in names:
        known = ", ".join(clean_line(name, 64) for name in names) or "none yet"
        raise NotFound(f"the network has no model {model[:64]!r}", hint=f"registered: {known}")
    found = []
    for name in names if model is None else (model,):
        found += await _book(chain, name, height)
    return height, found


async def provider_data(chain: Chain, text: str) -> dict[str, Any]:
    """Everything proved about one provider.

    Raises:
        BadAddress, NotFound
    """
    provider_id = decode_address(text, chain.prefix + PROVIDER_SUFFIX)
    height = await chain.reads.provable_height()
    found = await chain.reads.provider(provider_id, height)
    if found is None:
        raise NotFound(f"no provider {text} is registered", hint="dllm provider list")
    offered = await chain.reads.record(records.ModelSet, state_keys.offers_of(provider_id), height)
    offers = [await _offer(chain, name, provider_id, height) for name in (offered.names if offered else ())]
    return {
        "provider": text,
        "owner": encode_address(chain.prefix, found.owner),
        "operator": encode_address(chain.prefix, found.operator),
        "bond_udllm": found.bond_udllm,
        "unbonding_udllm": sum(one.amount_udllm for one in found.unbonding),
        "jailed": bool(found.jailed),
        "alive_epoch": found.alive_epoch,
        "region": clean_line(found.region, 64),
        "endpoints": [clean_line(endpoint, 300) for endpoint in found.endpoints],
        "service_key": found.service_key.hex(),
        "sealing_key": found.sealing_key.hex(),
        "offers": [offer for offer in offers if offer],
        "height": height,
    }


def prices_data(prices: RowPrices) -> dict[str, int]:
    """Prices in udllm for 1,000 rows, by kind."""
    return {name.removesuffix("_udllm"): value for name, value in asdict(prices).items()}


async def _book(chain: Chain, model: str, height: int) -> list[dict[str, Any]]:
    try:
        book = await chain.reads.offer_book(model, None, height)
    except NotFound:
        return []  # proved: nobody ever offered it
    found = []
    for entry in sorted(book.entries, key=lambda one: (one.prices.kept_udllm, one.provider)):
        offer = await chain.reads.record(records.Offer, state_keys.offer(model, entry.provider), height)
        found.append(
            {
                "provider": encode_address(chain.prefix + PROVIDER_SUFFIX, entry.provider),
                "owner": encode_address(chain.prefix, entry.owner),
                "model": clean_line(model, 64),
                "layers": [entry.first_layer, entry.end_layer],
                "prices_udllm_per_1000": prices_data(entry.prices),
                "reputation_ppm": entry.reputation_ppm,
                "capacity_sessions": entry.capacity_sessions,
                "open_sessions": offer.open_sessions if offer else 0,
                "standing": offer is not None,
                "book_epoch": book.epoch,
            }
        )
    return found


async def _offer(chain: Chain, model: str, provider_id: bytes, height: int) -> dict[str, Any] | None:
    offer = await chain.reads.record(records.Offer, state_keys.offer(model, provider_id), height)
    if offer is None:
        return None
    evidence = await chain.reads.reputation(provider_id, model, height) or NO_EVIDENCE
    return {
        "model": clean_line(model, 64),
        "layers": [offer.first_layer, offer.end_layer],
        "prices_udllm_per_1000": prices_data(offer.prices),
        "reputation_ppm": score_ppm(evidence),
        "evidence": {
            "successes": evidence.successes / UNIT,
            "failures": evidence.failures / UNIT,
            "epoch": evidence.epoch,
        },
        "capacity_sessions": offer.capacity_sessions,
        "open_sessions": offer.open_sessions,
    }
