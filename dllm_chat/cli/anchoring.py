"""Whether a receipt's header is part of the chain that this machine verified."""

from __future__ import annotations

from dllm_chat.cli.output import progress
from dllm_chat.cli.service import watching
from dllm_chat.paths import Paths
from dllm_chat.session.receipts import ReceiptRefused
from dllm_protocol.header import Header
from light_node.errors import RootMismatch
from light_node.trust_store import TrustStore


def anchored_offline(paths: Paths, header: Header) -> bool:
    """Whether the stored trust holds this header, or the one above it, which names its hash.

    Raises:
        ReceiptRefused: the verified chain has another header at that height.
    """
    store = _store(paths, header.chain_id)
    if store is None:
        return False
    with store:
        same = store.at(header.height)
        if same is not None:
            _check(header, same.hash())
            return True
        above = store.at(header.height + 1)
        if above is None:
            return False
        _check(header, above.header.last_block_id.hash)
        return True


async def anchor_online(header: Header) -> bool:
    """Ask the network in use for the verified header at that height; False where it is another chain.

    Raises:
        ReceiptRefused: the verified chain has another header at that height.
        NetworkUnreachable, VerificationFailed
    """
    async with watching() as service:
        if service.chain_id != header.chain_id:
            progress(f"the receipt is of chain {header.chain_id}, in use is {service.chain_id}")
            return False
        verified = await service.chain.reads.client.verified_header(header.height)
        _check(header, verified.hash())
        return True


def _check(header: Header, verified: bytes) -> None:
    if header.hash() != verified:
        raise ReceiptRefused(
            f"the receipt's header {header.height} is {header.hash().hex()}, verified is {verified.hex()}",
            hint="the receipt is of another chain, or forged",
        )


def _store(paths: Paths, chain_id: str) -> TrustStore | None:
    """The light node's memory of that chain; None where this machine has none."""
    candidates = [paths.embedded / "light.db"]
    if paths.networks.is_dir():
        # Looked up by name, never joined to a path: the chain id is a stranger's text.
        candidates += [entry / "light.db" for entry in paths.networks.iterdir() if entry.name == chain_id]
    for path in candidates:
        if not path.is_file():
            continue
        try:
            return TrustStore(path, chain_id)
        except RootMismatch:
            continue  # another chain's
    return None
