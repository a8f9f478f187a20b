"""Moments as CometBFT writes them: seconds and nanoseconds since 1970, UTC, years 1 to 9999.

Nothing here reads a clock; the calendar is computed in integers (days of the proleptic Gregorian calendar).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.comet_wire import VARINT, read_fields, varint_field

NANOS_PER_SECOND = 1_000_000_000
NANOS_PER_MS = 1_000_000
SECONDS_MIN = -62_135_596_800
"""0001-01-01T00:00:00Z, the first moment that protobuf's Timestamp allows and Go's zero time."""
SECONDS_MAX = 253_402_300_799
"""9999-12-31T23:59:59Z."""

_DAYS_PER_ERA = 146_097
_DAYS_TO_1970 = 719_468
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A moment in UTC; ordered by time."""

    seconds: int
    """Whole seconds since 1970-01-01T00:00:00Z; negative before it."""

    nanos: int = 0
    """Nanoseconds on top, 0 … 999 999 999."""

    def __post_init__(self) -> None:
        if not SECONDS_MIN <= self.seconds <= SECONDS_MAX:
            raise MalformedBlock(f"timestamp seconds {self.seconds} outside {SECONDS_MIN} … {SECONDS_MAX}")
        if not 0 <= self.nanos < NANOS_PER_SECOND:
            raise MalformedBlock(f"timestamp nanos {self.nanos} outside 0 … {NANOS_PER_SECOND - 1}")

    @classmethod
    def from_ns(cls, total_ns: int) -> Timestamp:
        """Return the moment so many nanoseconds after 1970."""
        return cls(*divmod(total_ns, NANOS_PER_SECOND))

    def to_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return self.seconds * NANOS_PER_SECOND + self.nanos

    def to_ms(self) -> int:
        """Return whole milliseconds since 1970, rounded down."""
        return self.to_ns() // NANOS_PER_MS

    def add_ns(self, delta_ns: int) -> Timestamp:
        """Return the moment `delta_ns` nanoseconds later (earlier when negative)."""
        return Timestamp.from_ns(self.to_ns() + delta_ns)

    def add_ms(self, delta_ms: int) -> Timestamp:
        """Return the moment `delta_ms` milliseconds later (earlier when negative)."""
        return self.add_ns(delta_ms * NANOS_PER_MS)

    def encode(self) -> bytes:
        """Return google.protobuf.Timestamp{seconds=1, nanos=2}."""
        return varint_field(1, self.seconds) + varint_field(2, self.nanos)

    @classmethod
    def decode(cls, data: bytes) -> Timestamp:
        """Read what `encode` wrote.

        Raises:
            MalformedBlock: not the canonical bytes of a moment in the years 1 to 9999.
        """
        fields = read_fields("Timestamp", data, {1: VARINT, 2: VARINT})
        return cls(fields.signed(1), fields.signed(2))

    def to_rfc3339(self) -> str:
        """Format as Go's RFC3339Nano in UTC: trailing zeros of the fraction dropped."""
        days, second_of_day = divmod(self.seconds, 86_400)
        year, month, day = _date_of_days(days)
        hour, rest = divmod(second_of_day, 3600)
        minute, second = divmod(rest, 60)
        fraction = f".{self.nanos:09d}".rstrip("0") if self.nanos else ""
        return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{fraction}Z"

    @classmethod
    def from_rfc3339(cls, text: str) -> Timestamp:
        """Parse RFC 3339 in UTC (suffix Z), at most nine digits of fraction, no leap seconds.

        Raises:
            MalformedBlock: any other text, or a date that the calendar does not have.
        """
        match = _RFC3339.fullmatch(text)
        if match is None:
            raise MalformedBlock(f"not an RFC 3339 moment in UTC: {text[:40]!r}")
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= _days_in_month(year, month)):
            raise MalformedBlock(f"no such date: {text!r}")
        if hour > 23 or minute > 59 or second > 59:
            raise MalformedBlock(f"no such time of day: {text!r}")
        nanos = int((match.group(7) or "0").ljust(9, "0"))
        seconds = _days_of_date(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        return cls(seconds, nanos)

    def __str__(self) -> str:
        return self.to_rfc3339()


def _days_in_month(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _MONTH_DAYS[month - 1]


def _days_of_date(year: int, month: int, day: int) -> int:
    """Days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms", days_from_civil)."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * _DAYS_PER_ERA + day_of_era - _DAYS_TO_1970


def _date_of_days(days: int) -> tuple[int, int, int]:
    """Year, month, day of a day since 1970 (same source, civil_from_days)."""
    era, day_of_era = divmod(days + _DAYS_TO_1970, _DAYS_PER_ERA)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = shifted_month + (3 if shifted_month < 10 else -9)
    return era * 400 + year_of_era + (month <= 2), month, day


GO_ZERO_TIME = Timestamp(SECONDS_MIN, 0)
"""Go's `time.Time{}`, which stands in absent commit signatures."""
