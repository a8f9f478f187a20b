"""The text that monitors read, judged by Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dllm_protocol.exposition import (
    SAMPLES_MAX,
    BadMetric,
    Family,
    Histogram,
    LabelledCounter,
    MetricKind,
    Sample,
    counter,
    exposition,
    gauge,
)


def test_every_kind_is_read_as_it_was_meant() -> None:
    sizes = Histogram((1.0, 5.0))
    for value in (0.5, 1.0, 3.0, 70.0):
        sizes.observe(value)
    calls = LabelledCounter("method", "outcome")
    calls.add("status", "ok", count=2)
    calls.add('with "quotes"\\ and\nlines', "error")
    written = exposition(
        [
            counter("made_total", "How many.\nReally.", 2**53),
            gauge("level_ratio", "", 0.1),
            sizes.family("size_bytes", "Sizes."),
            calls.family("calls_total", "Calls."),
        ]
    )
    read = {family.name: family for family in text_string_to_metric_families(written)}
    assert (read["made"].type, read["made"].documentation) == ("counter", "How many.\nReally.")
    assert read["made"].samples[0].value == 2**53
    assert read["level_ratio"].samples[0].value == 0.1
    buckets = {one.labels.get("le", one.name): one.value for one in read["size_bytes"].samples}
    assert buckets == {"1.0": 2, "5.0": 3, "+Inf": 4, "size_bytes_sum": 74.5, "size_bytes_count": 4}
    assert [one.labels["method"] for one in read["calls"].samples] == ["status", 'with "quotes"\\ and\nlines']


def test_labels_are_bounded() -> None:
    calls = LabelledCounter("method", combinations_max=3)
    for number in range(100):
        calls.add(f"stranger{number}")
    assert len(calls.family("calls_total", "").samples) == 4


@pytest.mark.parametrize(
    "families",
    [
        [gauge("bad name", "", 1)],
        [gauge("twice", "", 1), gauge("twice", "", 1)],
        [Family("wide", MetricKind.GAUGE, "", [Sample(1)] * (SAMPLES_MAX + 1))],
        [Family("labelled", MetricKind.GAUGE, "", [Sample(1, {"bad-label": "x"})])],
    ],
)
def test_what_the_format_cannot_say_is_refused(families: list[Family]) -> None:
    with pytest.raises(BadMetric):
        exposition(families)


def test_bounds_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(BadMetric):
        Histogram((2.0, 1.0))
