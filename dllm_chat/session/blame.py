"""Who is to blame when a line fails: a stage, its neighbour who accuses it, or only the way between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.stage_leg import StageFailed, StageLeg


class Blame:
    """What stages of one session were accused of so far."""

    def __init__(self) -> None:
        """Nobody was accused of anything yet."""
        self._complaints: Counter[bytes] = Counter()
        self._stuck_behind: Counter[bytes] = Counter()
        self._relinked: set[tuple[bytes, bytes]] = set()

    def victim(self, legs: Sequence[StageLeg], failure: LegFailed) -> bytes | None:
        """Whom to replace; None: two stages that both live lost each other, and shall link up once more.

        A stage may accuse its neighbour. Whoever complains of a second one is taken to be the cause itself; so is a
        stage behind which a second one did nothing.
        """
        accused = failure.provider or legs[0].provider
        accuser, behind = (
            (failure.accuser, failure.behind) if isinstance(failure, StageFailed) else (b"", b"")
        )
        if behind:
            self._stuck_behind[behind] += 1
            if self._stuck_behind[behind] > 1 and any(leg.provider == behind for leg in legs):
                return behind
        lives = any(leg.provider == accused and leg.alive for leg in legs)
        if not accuser or not lives:
            return accused
        if (accuser, accused) not in self._relinked:
            self._relinked.add((accuser, accused))
            return None
        self._complaints[accuser] += 1
        if self._complaints[accuser] > 1 and any(leg.provider == accuser for leg in legs):
            return accuser
        return accused
