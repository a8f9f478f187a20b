"""The end of a turn over several stages: each has its last voucher, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from dllm_chat.session.line_ear import LineEar
from dllm_chat.session.patience import ANSWER_TIMEOUT_S
from dllm_chat.session.stage_leg import StageFailed, StageLeg
from dllm_protocol.session.ledger import Ledger


async def seal_turn(
    legs: Sequence[StageLeg],
    ear: LineEar,
    ledger: Ledger,
    send: Callable[[StageLeg, bytes], Awaitable[None]],
) -> None:
    """Have every stage acknowledge the turn's last rows.

    Raises:
        StageFailed: one did not.
    """
    for leg in legs:
        frame = leg.leg.seal_turn()
        if frame is not None:
            await send(leg, frame)

    def acknowledged(leg: StageLeg) -> bool:
        acks = (ack.ack for ack in ledger.state.acks if ack.ack.provider == leg.provider)
        return next((ack.n for ack in acks), 0) >= leg.leg.newest_voucher_n

    def late() -> StageFailed:
        leg = next(leg for leg in legs if not acknowledged(leg))
        return StageFailed(leg.provider, "a stage did not acknowledge the turn's last voucher")

    await ear.until(lambda: all(map(acknowledged, legs)), ANSWER_TIMEOUT_S, late)
