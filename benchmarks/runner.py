"""What the benchmarks share: the shape of a result, interleaved pairs, and how they are found and run.

A benchmark is a module of this package with two names: ``NAME``, a string literal, and ``run()``, which yields
`Result`s. It is found by its file, so that asking for one loads no other.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

NAME_LINE = re.compile(r'^NAME(?:: Final)? = "([a-z0-9-]+)"$', re.M)


@dataclass(frozen=True, slots=True)
class Result:
    """One measured number beside the one that it is judged by."""

    name: str
    """The benchmark and, after a slash, which of its numbers."""
    value: float
    """What was measured (a median)."""
    unit: str
    """Of both values."""
    against: str
    """The peer or limit, in words."""
    against_value: float
    """Measured in the same run, or a stated target."""
    ratio: float
    """value ÷ against_value; where both were measured in turn, the median of what neighbours in time gave."""

    @classmethod
    def of(cls, name: str, value: float, unit: str, against: str, against_value: float) -> Result:
        """A result with its ratio worked out.

        Raises:
            ValueError: nothing can be compared with zero.
        """
        if against_value == 0:
            raise ValueError(f"{name}: the value of {against!r} is 0 {unit}, no ratio can be told")
        return cls(name, value, unit, against, against_value, value / against_value)

    @classmethod
    def of_turns(
        cls, name: str, values: Sequence[float], unit: str, against: str, others: Sequence[float]
    ) -> Result:
        """A result of both sides measured in turn, ours first: each of ours beside the mean of the peer's around it.

        A machine of which others have a share may be a third slower for a minute. That moves the medians of the two
        sides against each other, but hardly what is measured right before and behind.
        """
        around = [statistics.mean(others[max(0, turn - 1) : turn + 1]) for turn in range(len(values))]
        ratio = statistics.median(value / other for value, other in zip(values, around, strict=True))
        return cls(name, statistics.median(values), unit, against, statistics.median(others), ratio)


def interleaved_medians(
    ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int, warm_up: int = 1
) -> tuple[float, float]:
    """Measures two things in turn, so that what slows the machine slows both.

    Args:
        ours: one measurement.
        theirs: one measurement of the peer.
        rounds: pairs that count.
        warm_up: pairs before them that do not.

    Returns:
        The medians of (ours, theirs).
    """
    pairs = []
    for number in range(warm_up + rounds):
        # Every other pair starts with the peer: the first of a pair finds colder caches.
        if number % 2:
            second, first = theirs(), ours()
        else:
            first, second = ours(), theirs()
        if number >= warm_up:
            pairs.append((first, second))
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def benchmarks() -> dict[str, str]:
    """Every benchmark's name and module, sorted by name; reads the files and imports none."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if match := NAME_LINE.search(path.read_text("utf-8")):
            found[match[1]] = f"{__package__}.{path.stem}"
    return dict(sorted(found.items()))


def run_all(names: Sequence[str]) -> Iterator[Result]:
    """Runs the named benchmarks in turn; all of them where none is named.

    Raises:
        KeyError: a name that no module has.
    """
    known = benchmarks()
    for name in names or known:
        if name not in known:
            raise KeyError(f"no benchmark {name!r}; there are {', '.join(known)}")
    for name in names or known:
        results: Iterable[Result] = importlib.import_module(known[name]).run()
        yield from results


def as_json(result: Result) -> str:
    """One line for machines."""
    return json.dumps(asdict(result), ensure_ascii=False)


def as_text(result: Result) -> str:
    """One line for people."""
    return (
        f"{result.name:<28} {result.value:>12.4g} {result.unit:<10} "
        f"÷ {result.against_value:.4g} ({result.against}) = {result.ratio:.3f}"
    )
