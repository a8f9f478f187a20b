"""How many rows to have decoded on a guess: as many as make a token cheapest in time, without wasting money.

Pure: measured times and hits come in as arguments, sizes of windows go out.

- *How good are guesses?* Each proposal is compared with the token that was then sampled, whether it was used or not.
  So the share of right ones is known before any row is paid for, by the length of the match behind the proposal.
- *How long does a request take?* A plain one `plain_s`, one with ``n`` drafted rows ``plain_s + n · row_s``. Both are
  measured; until the first window, a drafted row is taken to cost a quarter of a plain request.
- *What does a token cost?* Where a window costs more money a token than `MONEY_PERCENT` of plain decoding, it is not
  opened; and all drafted rows that came to nothing stay within an allowance that stood in the quote.
- A window must promise a gain before it is opened, and one that took longer than plain decoding would have is a debt:
  too much of it ends speculation for a while, each time for longer.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from dllm_protocol.pricing import RowPrices

MAX_DRAFTED_ROWS: Final = 15
"""With the kept row before them they are the largest batch that a worker decodes as one short job."""
MAX_FLYING: Final = 4
"""Windows on their way at once; a worker takes eight requests."""
MONEY_PERCENT: Final = 125
ALLOWED_SHARE: Final = 4
"""A quarter of the tokens allowed may be drafted in vain, and one window."""

_CLASSES: Final = (3, 5, 8, 16, 32)
_PRIOR: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_PRIOR_WEIGHT: Final = 3
_MEMORY: Final = 16
"""A share is that of about this many newest guesses."""
_GAIN_TO_OPEN: Final = 1.10
_GAIN_TO_STAY: Final = 1.02
_LIKELY: Final = 0.5
"""A further window flies only if it is at least as likely as not to be needed."""
_DEBT_LIMIT: Final = 4.0
_FIRST_PAUSE: Final = 32
_LONGEST_PAUSE: Final = 512
_TIME_MEMORY: Final = 12


def allowed_in_vain(max_tokens: int) -> int:
    """Drafted rows that may come to nothing in an answer of so many tokens."""
    return max_tokens // ALLOWED_SHARE + MAX_DRAFTED_ROWS


def may_draft(prices: RowPrices) -> bool:
    """Whether guesses can ever be worth their money at these prices."""
    return 100 * prices.drafted_udllm <= MONEY_PERCENT * prices.kept_udllm


class WindowControl:
    """Decides for one answer on one leg."""

    def __init__(self, prices: RowPrices, allowance_rows: int) -> None:
        """Prepare.

        Args:
            prices: of the leg's rows.
            allowance_rows: drafted rows that may come to nothing.
        """
        self.prices = prices
        self._left = allowance_rows
        self._shares = list(_PRIOR)
        self._weights = [_PRIOR_WEIGHT] * len(_PRIOR)
        self._plain_s: float | None = None
        self._plain_count = 0
        self._row_s: float | None = None
        self._row_count = 0
        self._is_open = False
        self._debt_s = 0.0
        self._pause = 0
        self._next_pause = _FIRST_PAUSE

    def guessed(self, length: int, *, right: bool) -> None:
        """A proposal behind a match of so many tokens was right, or not."""
        which = bisect_right(_CLASSES, length)
        self._weights[which] = min(self._weights[which] + 1, _MEMORY)
        self._shares[which] += (float(right) - self._shares[which]) / self._weights[which]

    def plain_took(self, seconds: float) -> None:
        """A request for one row took so long, way and all."""
        self._plain_count = min(self._plain_count + 1, _TIME_MEMORY)
        known = self._plain_s if self._plain_s is not None else seconds
        # One answer that was held up says little about the next.
        seconds = min(seconds, 4 * known)
        self._plain_s = known + (seconds - known) / self._plain_count
        self._pause = max(0, self._pause - 1)

    def window_took(self, drafted_rows: int, seconds: float) -> None:
        """A request with so many drafted rows took so long, with nothing of ours before it."""
        if self._plain_s is None or drafted_rows < 1:
            return
        row_s = max(0.0, seconds - self._plain_s) / drafted_rows
        row_s = min(row_s, self._plain_s)
        self._row_count = min(self._row_count + 1, _TIME_MEMORY)
        known = row_s if self._row_s is None else self._row_s
        self._row_s = known + (row_s - known) / self._row_count

    def round_ended(self, tokens: int, seconds: float) -> None:
        """Speculation brought so many tokens in so long, from the first window to the end of the last."""
        if self._plain_s is None:
            return
        self._debt_s = max(-_DEBT_LIMIT * self._plain_s, self._debt_s + seconds - tokens * self._plain_s)
        if self._debt_s > _DEBT_LIMIT * self._plain_s:
            self._debt_s, self._is_open = 0.0, False
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)

    def in_vain(self, rows: int) -> None:
        """So many drafted rows came to nothing."""
        self._left -= rows

    def rows(self, length: int, most: int) -> int:
        """How many rows to draft behind a match of so many tokens; 0: decode plainly.

        Args:
            most: more than this many make no sense.
        """
        best = self._best(length, most, _GAIN_TO_STAY if self._is_open else _GAIN_TO_OPEN)
        self._is_open = best > 0
        return best

    def further_rows(
        self, length: int, flying: int, windows: int, most: int, round_trip_s: float | None
    ) -> int:
        """How many guesses to send in a further window behind those on their way; 0: wait for them.

        Args:
            length: of the match before all that is on its way.
            flying: guesses on their way.
            windows: windows on their way.
            most: more than this many guesses make no sense.
            round_trip_s: measured time of a message's way there and back; None: not known yet.
        """
        if round_trip_s is None or not 0 < windows < MAX_FLYING:
            return 0
        rows = self._best(length + flying, min(most, self._left - flying), _GAIN_TO_STAY)
        return rows if rows and self._may_fly(length, rows, flying, windows, round_trip_s) else 0

    def _may_fly(self, length: int, rows: int, flying: int, windows: int, round_trip_s: float) -> bool:
        plain_s = self._plain_s or 0.0
        own_s = max(self._drafted_row_s, plain_s - round_trip_s) + rows * self._drafted_row_s
        # While a window travels, the engine could decode so many others.
        if windows * own_s > round_trip_s:
            return False
        *_, tokens = self._expected(length, flying + rows)
        likely = self._likely(length, flying + 1)
        return likely >= _LIKELY and self._is_worth_its_money(flying + rows + 1, flying + rows, tokens)

    def _best(self, length: int, most: int, least_gain: float) -> int:
        """The number of rows with the largest gain over plain decoding; 0 where none has that much."""
        if self._pause or not self._plain_s:
            return 0
        most = min(most, MAX_DRAFTED_ROWS, self._left)
        if most < 1 or not self._can_pay(self._share(length), most, least_gain):
            return 0
        best, best_gain = 0, least_gain
        for count, tokens in enumerate(self._expected(length, most), start=1):
            if not self._is_worth_its_money(count + 1, count, tokens):
                continue
            gain = tokens * self._plain_s / (self._plain_s + count * self._drafted_row_s)
            if gain > best_gain:
                best, best_gain = count, gain
        return best

    def _can_pay(self, share: float, most: int, least_gain: float) -> bool:
        """A quick no where not even guesses that are all as likely as the first could pay.

        Money, time and the tokens hoped for grow evenly with the rows: what fails at both ends fails between them.
        """
        plain_s = self._plain_s or 0.0
        ends = [(count, 1.0 + share * count) for count in (1, most)]
        return any(self._is_worth_its_money(count + 1, count, tokens) for count, tokens in ends) and any(
            tokens * plain_s > least_gain * (plain_s + count * self._drafted_row_s) for count, tokens in ends
        )

    @property
    def _drafted_row_s(self) -> float:
        return self._row_s if self._row_s is not None else (self._plain_s or 0.0) / 4

    def _share(self, length: int) -> float:
        """How likely a guess behind such a match is right. A longer match than any seen is as good as a shorter one."""
        which = bisect_right(_CLASSES, length)
        if self._weights[which] > _PRIOR_WEIGHT:
            return self._shares[which]
        pairs = zip(self._shares[:which], self._weights[:which], strict=True)
        return max([self._shares[which], *(share for share, weight in pairs if weight > _PRIOR_WEIGHT)])

    def _expected(self, length: int, most: int) -> list[float]:
        """Tokens that windows of 1, 2, … drafted rows bring, the one behind the last right row included."""
        likely, tokens, found = 1.0, 1.0, []
        for at in range(most):
            likely *= self._share(length + at)
            tokens += likely
            found.append(tokens)
        return found

    def _likely(self, length: int, guesses: int) -> float:
        """How likely all of so many guesses are right."""
        likely = 1.0
        for at in range(guesses):
            likely *= self._share(length + at)
        return likely

    def _is_worth_its_money(self, rows: int, drafted: int, tokens: float) -> bool:
        kept_udllm, drafted_udllm = self.prices.kept_udllm, self.prices.drafted_udllm
        cost = (rows - drafted) * kept_udllm + drafted * drafted_udllm
        return 100 * cost <= MONEY_PERCENT * kept_udllm * tokens
