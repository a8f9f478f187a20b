"""A session in JSON, proved."""

from __future__ import annotations

from typing import Any

from dllm_chat.cli.asking import share_data
from dllm_chat.dispatch.market import shares_of
from dllm_chat.session.conversation import Chain
from dllm_chat.session.saved import SavedSession
from dllm_protocol.pricing import client_price
from dllm_protocol.records import SESSION_CLOSED, SESSION_CLOSING, SESSION_OPEN

STATUS = {SESSION_OPEN: "open", SESSION_CLOSING: "closing", SESSION_CLOSED: "closed"}


async def session_data(chain: Chain, saved: SavedSession, height: int) -> dict[str, Any]:
    """One session: the chain's proved record beside the vouchers that we signed."""
    proved = await chain.reads.session(saved.route.session, height)
    voucher = saved.ledger.last_voucher
    signed = client_price(voucher.voucher.payments_udllm if voucher else 0, saved.community_share_ppm)
    claimed = proved.spent_udllm if proved else 0
    deposit = proved.deposit_udllm if proved else saved.deposit_udllm
    spent = max(signed, claimed)
    closed = proved is None or proved.status == SESSION_CLOSED
    return {
        "session": saved.route.session.hex(),
        "status": "gone" if proved is None else STATUS[proved.status],
        "model": saved.route.model,
        "deposit_udllm": deposit,
        "spent_udllm": claimed if closed else spent,
        "claimed_udllm": claimed,
        "left_udllm": 0 if closed else deposit - spent,
        "closing_until_ms": proved.closing_until_ms if proved else 0,
        "vouchers": voucher.voucher.n if voucher else 0,
        "route": [share_data(share) for share in shares_of(saved.route, chain.prefix)],
        "proved": True,
    }
