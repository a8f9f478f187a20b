"""After restoring a wallet: which session numbers did it use before? The chain knows, by proof."""

from __future__ import annotations

from typing import Any

from dllm_chat.cli.output import note, progress
from dllm_chat.paths import Paths
from dllm_chat.session.networks import joined_network
from dllm_chat.wallet.open_wallet import UnlockedWallet
from dllm_protocol.errors import DllmError

GAP = 20
"""This many unused numbers in a row end the search, as in BIP-44's account discovery."""
MAX_NUMBERS = 100_000


async def skip_used_sessions(paths: Paths, wallet: UnlockedWallet) -> dict[str, Any]:
    """Raise the wallet's session counter above every number that the joined network has seen."""
    if joined_network(paths) is None:
        return {"sessions_searched": False, "next_session": wallet.sessions.peek()}
    try:
        wallet.sessions.raise_to(await _first_unused(paths, wallet))
    except DllmError as error:
        # The wallet stands; a number used twice is refused by the chain and costs one more try.
        note(f"the network could not be asked for earlier sessions: {error.message}")
        return {"sessions_searched": False, "next_session": wallet.sessions.peek()}
    return {"sessions_searched": True, "next_session": wallet.sessions.peek()}


async def _first_unused(paths: Paths, wallet: UnlockedWallet) -> int:
    from dllm_chat.cli.service import settings
    from dllm_chat.session.service import ChatService
    from dllm_protocol.assignment import session_id_of

    _, config = settings()
    service = ChatService(paths, config, wallet)
    try:
        await service.open(progress)
        chain = service.chain
        height = await chain.reads.provable_height()
        unused = number = 0
        while number < unused + GAP and number < MAX_NUMBERS:
            key = wallet.session_key(number).public_key
            if await chain.reads.session(session_id_of(chain.purse.account, key), height) is not None:
                unused = number + 1
            number += 1
        return unused
    finally:
        await service.aclose()
