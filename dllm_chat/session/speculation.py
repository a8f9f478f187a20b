"""Several rows on one way: tokens that will probably come are sent along with the one that came.

    row = await speculation.decode_next(leg, token, …)     instead of     leg.decode_next(token, …)

Whoever calls it samples one token after the other from one row after the other, as in plain decoding, and never sees
which rows were asked for beforehand: so chance is drawn from in the same order, and stop strings, penalties and limits
are the caller's as ever. A row that was guessed is delivered only if the caller comes with exactly its token; else
everything on its way is given up, and the next request cuts those rows off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dllm_chat.session.decoder import Decoder, RowLogits
from dllm_chat.session.leg import RowsLost
from dllm_chat.session.lookup import Lookup
from dllm_chat.session.windows import WindowControl
from dllm_protocol.session.ledger import DepositUsedUp


@dataclass(slots=True)
class _Window:
    """Rows that were asked for in one request."""

    request: int
    ids: list[int]
    sent_s: float
    is_alone: bool
    """Nothing of ours was before it in the provider's queue."""
    read: int = 0

    @property
    def unread(self) -> list[int]:
        """Ids of the rows that were not delivered yet."""
        return self.ids[self.read :]


class Speculation:
    """What is on its way for one answer."""

    def __init__(self, control: WindowControl, clock_s: Callable[[], float]) -> None:
        """Prepare.

        Args:
            control: says how much to draft.
            clock_s: monotonic seconds.
        """
        self.drafted = 0
        """Rows asked for on a guess."""
        self.accepted = 0
        """Those of them whose token was then sampled."""
        self._control = control
        self._clock_s = clock_s
        self._lookup = Lookup()
        self._windows: deque[_Window] = deque()
        self._source = 0
        self._is_off = False
        self._round_tokens = 0
        self._round_s = 0.0

    def begin(self, ids: list[int]) -> None:
        """The text so far: a prompt."""
        self._lookup = Lookup(ids)

    def forget(self) -> None:
        """The leg is another one, or new: nothing is on its way any more."""
        self._control.in_vain(sum(len(window.unread) for window in self._windows))
        self._windows.clear()
        self._round_tokens, self._round_s = 0, 0.0

    async def decode_next(self, leg: Decoder, token: int, *, top_k: int, most: int) -> tuple[RowLogits, bool]:
        """The logits behind a token that was sampled, and whether they came in a window.

        Args:
            most: rows that may be needed after this one, at most.

        Raises:
            LegFailed, DepositUsedUp
        """
        self._learn(token)
        if self._windows:
            if self._windows[0].unread[0] == token:
                self.accepted += 1
            else:
                await self.give_up(leg)
        if not self._windows and not await self._open(leg, token, top_k, most):
            return await self._plain(leg, token, top_k), False
        return await self._from_window(leg, top_k, most), True

    async def give_up(self, leg: Decoder) -> None:
        """Nothing of what is on its way is wanted any more."""
        requests = [window.request for window in self._windows if not window.read]
        leg.pass_over(window.request for window in self._windows)
        if self._round_tokens:
            self._control.round_ended(self._round_tokens, self._round_s)
        self.forget()
        await leg.cancel(requests)

    def _learn(self, token: int) -> None:
        match = self._lookup.match
        if match is not None:
            (guess,) = self._lookup.propose(1, match.source)
            self._control.guessed(match.length, right=guess == token)
        self._lookup.append(token)

    async def _plain(self, leg: Decoder, token: int, top_k: int) -> RowLogits:
        began_s, is_alone = self._clock_s(), not leg.is_cancelling
        row = await leg.decode_next(token, top_k, position=len(self._lookup) - 1)
        if is_alone:
            self._control.plain_took(self._clock_s() - began_s)
        return row

    async def _open(self, leg: Decoder, token: int, top_k: int, most: int) -> bool:
        """Send a first window; False where none is worth while."""
        match = self._lookup.match
        count = self._control.rows(match.length, most) if match and not self._is_off else 0
        if match is None or not count:
            return False
        draft = self._lookup.propose(count, match.source)
        self._source = match.source + count
        return await self._send(leg, len(self._lookup) - 1, [token, *draft], count, top_k)

    async def _send(self, leg: Decoder, position: int, ids: list[int], guesses: int, top_k: int) -> bool:
        is_alone = not self._windows and not leg.is_cancelling
        sent_s = self._clock_s()
        try:
            request = await leg.send_window(position, ids, top_k)
        except DepositUsedUp:  # guesses are no reason to lock more; plain decoding may still fit
            self._is_off = True
            return False
        self._windows.append(_Window(request, ids, sent_s, is_alone))
        self.drafted += guesses
        return True

    async def _from_window(self, leg: Decoder, top_k: int, most: int) -> RowLogits:
        began_s = self._clock_s()
        window = self._windows[0]
        await self._fly(leg, top_k, most)
        try:
            row = await leg.row_of(window.request)
        except RowsLost as lost:
            self.forget()
            return await leg.replay(self._lookup.tokens, lost, top_k)
        if window.is_alone and not window.read:
            self._control.window_took(len(window.ids) - 1, self._clock_s() - window.sent_s)
        window.read += 1
        self._round_tokens += 1
        self._round_s += self._clock_s() - began_s
        if not window.unread:
            self._windows.popleft()
            leg.pass_over((window.request,))
        if not self._windows:
            self._control.round_ended(self._round_tokens, self._round_s)
            self.forget()
        return row

    async def _fly(self, leg: Decoder, top_k: int, most: int) -> None:
        """Send further windows, which go on where those on their way will end if all of their guesses are right."""
        match = self._lookup.match
        while match is not None and not self._is_off:
            flying = [token for window in self._windows for token in window.unread][1:]
            count = self._control.further_rows(
                match.length, len(flying), len(self._windows), most - len(flying), leg.round_trip_s
            )
            if not count:
                return
            draft = self._lookup.propose(count, self._source, flying)
            self._source += count
            if not await self._send(leg, len(self._lookup) + len(flying), draft, count, top_k):
                return
