"""Moments: calendar, text, bytes."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.timestamp import GO_ZERO_TIME, NANOS_PER_SECOND, SECONDS_MAX, SECONDS_MIN, Timestamp

MOMENTS = st.builds(Timestamp, st.integers(SECONDS_MIN, SECONDS_MAX), st.integers(0, NANOS_PER_SECOND - 1))


@given(MOMENTS)
def test_text_and_bytes_lead_back(moment: Timestamp) -> None:
    assert Timestamp.from_rfc3339(moment.to_rfc3339()) == moment
    assert Timestamp.decode(moment.encode()) == moment
    assert Timestamp.from_ns(moment.to_ns()) == moment


@given(st.datetimes(), st.integers(0, 999_999))
def test_the_calendar_is_the_standard_library_s(date: datetime.datetime, nanos: int) -> None:
    date = date.replace(microsecond=0, tzinfo=datetime.UTC)
    moment = Timestamp(int((date - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds()))
    assert moment.to_rfc3339() == f"{date.year:04d}-" + date.strftime("%m-%dT%H:%M:%SZ")
    assert moment.add_ns(nanos).nanos == nanos


def test_known_moments() -> None:
    assert GO_ZERO_TIME.to_rfc3339() == "0001-01-01T00:00:00Z"
    assert GO_ZERO_TIME.encode().hex() == "088092b8c398feffffff01"
    assert Timestamp(1, 500_000_000).to_rfc3339() == "1970-01-01T00:00:01.5Z"
    assert Timestamp(-1, 1).to_rfc3339() == "1969-12-31T23:59:59.000000001Z"
    assert Timestamp(SECONDS_MAX).to_rfc3339() == "9999-12-31T23:59:59Z"
    assert str(Timestamp(951_782_400)) == "2000-02-29T00:00:00Z"
    assert Timestamp(5, 7).add_ms(1).to_ms() == 5001
    assert Timestamp(5) < Timestamp(5, 1) < Timestamp(6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01t00:00:00z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567890Z",
        " 2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\n",
        "٢٠٢٦-01-01T00:00:00Z",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(MalformedBlock):
        Timestamp.from_rfc3339(text)


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(SECONDS_MAX + 1, 0), (SECONDS_MIN - 1, 0), (0, -1), (0, 10**9)]
)
def test_moments_outside_the_calendar_are_refused(seconds: int, nanos: int) -> None:
    with pytest.raises(MalformedBlock):
        Timestamp(seconds, nanos)
