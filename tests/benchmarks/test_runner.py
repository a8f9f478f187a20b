"""Benchmarks are found, compared and printed as promised."""

import json
from collections.abc import Iterator

import pytest

from benchmarks.__main__ import main
from benchmarks.runner import Result, as_json, benchmarks, interleaved_medians, run_all


def test_every_benchmark_is_found_by_its_name() -> None:
    assert benchmarks()["startup"] == "benchmarks.startup"


def test_a_result_knows_its_ratio() -> None:
    result = Result.of("x", 3.0, "s", "peer", 2.0)
    assert json.loads(as_json(result)) == {
        "name": "x",
        "value": 3.0,
        "unit": "s",
        "against": "peer",
        "against_value": 2.0,
        "ratio": 1.5,
    }


def test_turns_are_compared_with_what_was_measured_around_them() -> None:
    # The machine slows down by half in between: what was measured in one go is compared, not the medians.
    result = Result.of_turns("x", [8.0, 8.0, 4.0, 4.0], "t/s", "peer", [10.0, 10.0, 5.0, 5.0])
    assert result.ratio == pytest.approx(0.8)
    assert (result.value, result.against_value) == (6.0, 7.5)


def test_one_turn_in_a_slow_moment_moves_the_ratio_little() -> None:
    result = Result.of_turns("x", [8.0, 2.0, 8.0], "t/s", "peer", [10.0, 10.0, 10.0])
    assert result.ratio == pytest.approx(0.8)


def test_a_peer_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="'peer' is 0 s"):
        Result.of("x", 3.0, "s", "peer", 0.0)


def test_pairs_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    ours = iter([100.0, 1.0, 2.0, 9.0])
    theirs = iter([100.0, 4.0, 5.0, 6.0])

    def measure(name: str, values: Iterator[float]) -> float:
        order.append(name)
        return next(values)

    medians = interleaved_medians(lambda: measure("a", ours), lambda: measure("b", theirs), rounds=3)
    assert medians == (2.0, 5.0)
    assert "".join(order) == "abbaabba"


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such"]) == 2
    assert "startup" in capsys.readouterr().err
    with pytest.raises(KeyError, match="no benchmark 'no-such'"):
        list(run_all(["no-such"]))
