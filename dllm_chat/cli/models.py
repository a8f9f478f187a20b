"""A registered model, proved, in JSON."""

from __future__ import annotations

from typing import Any

from dllm_chat.cli.providers import prices_data
from dllm_chat.sanitize import clean_line
from dllm_chat.session.conversation import Chain
from dllm_protocol import records, state_keys
from dllm_protocol.address import encode_address
from dllm_protocol.errors import NotFound
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.records import MODEL_ACTIVE, MODEL_DEPRECATED, MODEL_PROPOSED, MODEL_RETIRED

STATUS = {
    MODEL_PROPOSED: "proposed",
    MODEL_ACTIVE: "active",
    MODEL_DEPRECATED: "deprecated",
    MODEL_RETIRED: "retired",
}


async def registered_model(chain: Chain, name: str, height: int) -> records.ModelRecord:
    """A model's record.

    Raises:
        NotFound: proved that there is no such model.
    """
    found = await chain.reads.model(name, height) if _can_be_a_name(name) else None
    if found is None:
        known = ", ".join(clean_line(one, 64) for one in await chain.reads.models(height)) or "none yet"
        raise NotFound(f"the network has no model {name[:64]!r}", hint=f"registered: {known}")
    return found


async def model_data(chain: Chain, name: str, height: int) -> dict[str, Any]:
    """Manifest, owner and how many offer it.

    Raises:
        NotFound: proved that there is no such model.
    """
    found = await registered_model(chain, name, height)
    manifest = found.manifest
    live = await chain.reads.record(records.ProviderSet, state_keys.live_offers(name), height)
    return {
        "name": clean_line(manifest.name, 64),
        "status": STATUS[found.status],
        "manifest_hash": manifest_hash(manifest).hex(),
        "owner": encode_address(chain.prefix, found.owner),
        "bond_udllm": found.bond_udllm,
        "architecture": clean_line(manifest.architecture, 64),
        "layers": manifest.layers,
        "context_rows": manifest.context_rows,
        "chat_template": clean_line(manifest.chat_template, 64),
        "licence": clean_line(manifest.licence, 64),
        "vocabulary_hash": manifest.vocabulary_hash.hex(),
        "reserve_prices_udllm_per_1000": prices_data(manifest.reserve_prices),
        "size_bytes": sum(piece.size_bytes for piece in manifest.pieces),
        "pieces": [
            {
                "kind": piece.kind,
                "index": piece.index,
                "size_bytes": piece.size_bytes,
                "root": piece.root.hex(),
            }
            for piece in manifest.pieces
        ],
        "providers": len(live.providers) if live else 0,
        "height": height,
    }


def _can_be_a_name(name: str) -> bool:
    return 0 < len(name.encode()) <= 64
