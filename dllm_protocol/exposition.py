"""Prometheus' text exposition format 0.0.4: what a program counts, as lines that a monitor reads.

Source: prometheus.io/docs/instrumenting/exposition_formats. Nothing here counts, reads a clock or opens a port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dllm_protocol.errors import UsageRefused

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SAMPLES_MAX = 500
"""Most samples that one family may have: labels that strangers choose would otherwise grow without end."""
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


class MetricKind(StrEnum):
    """What a family's numbers do: rise only, move both ways, or count observations by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class BadMetric(UsageRefused):
    """A family that the format cannot say, or that has grown beyond its bound."""

    code = "E_METRIC"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number, with what it is about."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    """Behind the family's name: ``_bucket``, ``_sum`` or ``_count`` of a histogram."""


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers under one name; the unit stands last in it, ``_total`` behind the unit of a counter."""

    name: str
    kind: MetricKind
    help: str
    samples: Sequence[Sample]


def counter(name: str, help_text: str, value: float) -> Family:
    """A family of one number that only rises."""
    return Family(name, MetricKind.COUNTER, help_text, (Sample(value),))


def gauge(name: str, help_text: str, value: float) -> Family:
    """A family of one number that moves both ways."""
    return Family(name, MetricKind.GAUGE, help_text, (Sample(value),))


class Histogram:
    """Counts observations by size.

    Args:
        bounds: upper bounds of the buckets, ascending; one more takes what is larger.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        if list(bounds) != sorted(set(bounds)):
            raise BadMetric(f"bounds of a histogram ascend, these are {list(bounds)}")
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[next((at for at, bound in enumerate(self._bounds) if value <= bound), -1)] += 1
        self._sum += value

    def family(self, name: str, help_text: str) -> Family:
        """What was counted until now."""
        samples, below = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            below += count
            samples.append(Sample(below, {"le": _number(bound)}, "_bucket"))
        samples += [Sample(self._sum, suffix="_sum"), Sample(below, suffix="_count")]
        return Family(name, MetricKind.HISTOGRAM, help_text, samples)


class LabelledCounter:
    """Counts by a few labels; a combination beyond the bound is counted as ``other``."""

    def __init__(self, *labels: str, combinations_max: int = 100) -> None:
        self._labels = labels
        self._combinations_max = combinations_max
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *values: str, count: int = 1) -> None:
        """Count under these values, one a label."""
        if values not in self._counts and len(self._counts) >= self._combinations_max:
            values = ("other",) * len(self._labels)
        self._counts[values] = self._counts.get(values, 0) + count

    def family(self, name: str, help_text: str) -> Family:
        """What was counted until now."""
        samples = [
            Sample(count, dict(zip(self._labels, values, strict=True)))
            for values, count in sorted(self._counts.items())
        ]
        return Family(name, MetricKind.COUNTER, help_text, samples)


def exposition(families: Iterable[Family]) -> str:
    """The text of all families.

    Raises:
        BadMetric: a name that the format does not have, one that comes twice, or too many samples.
    """
    lines: list[str] = []
    seen: set[str] = set()
    for family in families:
        if _NAME.fullmatch(family.name) is None or family.name in seen:
            raise BadMetric(f"metric {family.name[:80]!r} has a bad name or comes twice")
        if len(family.samples) > SAMPLES_MAX:
            raise BadMetric(f"metric {family.name} has {len(family.samples)} samples, at most {SAMPLES_MAX}")
        seen.add(family.name)
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [
            f"{family.name}{one.suffix}{_labels(one.labels)} {_number(one.value)}" for one in family.samples
        ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = []
    for name, value in labels.items():
        if _NAME.fullmatch(name) is None:
            raise BadMetric(f"label {name[:80]!r} has a bad name")
        quoted = _escaped(value).replace('"', '\\"')
        pairs.append(f'{name}="{quoted}"')
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return repr(value)
