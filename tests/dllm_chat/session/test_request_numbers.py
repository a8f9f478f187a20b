"""Numbers of requests: each stage sees them count up, and what a number left out says is never said by chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.request_numbers import RequestNumbers


@dataclass
class Line:
    """Some stages' legs, and a client that asks over them."""

    last: list[int]
    """The newest request of each leg."""
    legs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.legs = [SimpleNamespace(leg=SimpleNamespace(last_request=number)) for number in self.last]
        self.numbers = RequestNumbers(cast(Any, self.legs))

    def asked(self, number: int, *legs: int) -> int:
        """A number is used, over all legs or some."""
        for leg in legs or range(len(self.legs)):
            assert number > self.legs[leg].leg.last_request, "requests count up at each stage"
            self.legs[leg].leg.last_request = number
        return number

    def row(self, position: int, token: int, *, likeliest: int | None = None) -> int:
        number = self.asked(self.numbers.next_row(position, token))
        if likeliest is not None:
            self.numbers.told(number, likeliest)
        return number

    def other(self, *legs: int) -> int:
        return self.asked(self.numbers.next(), *legs)


def test_the_likeliest_token_behind_a_row_has_the_next_number() -> None:
    line = Line([10, 10])
    first = line.row(5, 1, likeliest=7)
    assert line.row(6, 7, likeliest=8) == first + 1
    assert line.row(7, 8) == first + 2


def test_any_other_token_leaves_that_number_out() -> None:
    line = Line([10, 10])
    first = line.row(5, 1, likeliest=7)
    assert line.row(6, 8, likeliest=9) == first + 2
    assert line.row(7, 9) == first + 3, "it is left out once"


def test_the_likeliest_token_at_another_position_leaves_it_out_too() -> None:
    for position in (4, 5, 7):
        line = Line([10, 10])
        first = line.row(5, 1, likeliest=7)
        assert line.row(position, 7) == first + 2


def test_a_row_whose_likeliest_token_is_not_known_yet_reserves_its_number_all_the_same() -> None:
    line = Line([10, 10])
    first = line.row(5, 1)
    assert line.row(6, 7) == first + 2


def test_a_request_of_another_kind_behind_a_row_leaves_the_number_out() -> None:
    line = Line([10, 10])
    first = line.row(5, 1, likeliest=7)
    window = line.other()
    assert window == first + 2
    assert line.other() == window + 1, "behind it none is reserved"
    assert line.row(6, 7) == window + 2, "and what was likeliest behind the row is so no more"


def test_what_is_told_of_an_earlier_row_changes_nothing() -> None:
    line = Line([10, 10])
    first = line.row(5, 1)
    second = line.row(6, 2)
    line.numbers.told(first, 7)
    assert line.row(7, 7) == second + 2
    line = Line([10, 10])
    first = line.row(5, 1, likeliest=6)
    second = line.row(6, 6)
    line.numbers.told(first, 7)
    assert line.row(7, 7) == second + 2


def test_asking_for_a_number_twice_without_using_it_gives_the_same() -> None:
    line = Line([10, 10])
    line.row(5, 1, likeliest=7)
    assert line.numbers.next() == line.numbers.next()


def test_numbers_go_on_from_the_newest_of_all_legs() -> None:
    line = Line([3, 40, 0])
    assert line.other() > 40
    first = line.row(5, 1, likeliest=7)
    assert line.row(6, 7) == first + 1


def test_a_request_to_some_of_the_stages_counts_for_all() -> None:
    line = Line([10, 10, 10])
    first = line.row(5, 1, likeliest=7)
    resent = line.other(0)
    assert resent == first + 2
    assert line.row(6, 7) == resent + 1, "never the number behind the row: that is the guess's"


def test_a_new_line_over_used_legs_does_not_begin_with_a_number_that_may_be_reserved() -> None:
    """Its stages may still have what the old line's last stage took for the likeliest."""
    old = Line([10, 10])
    newest = old.row(5, 1, likeliest=7)
    assert Line([newest, 0]).numbers.next() == newest + 2
    assert Line([newest, 0]).numbers.next_row(6, 7) == newest + 2
    new = Line([newest, 0])
    first = new.row(0, 1, likeliest=3)
    assert new.row(1, 3) == first + 1


def test_fresh_legs_begin_above_nothing() -> None:
    assert Line([0, 0]).numbers.next() >= 1
    assert Line([0, 0]).numbers.next_row(0, 5) >= 1


@given(
    last=st.lists(st.integers(0, 50), min_size=1, max_size=3),
    steps=st.lists(
        st.tuples(st.sampled_from(["likeliest", "another", "elsewhere", "other", "new line"]), st.booleans())
    ),
)
def test_the_number_behind_a_row_stands_for_the_likeliest_token_or_for_nothing(
    last: list[int], steps: list[tuple[str, bool]]
) -> None:
    line, position, newest_row = Line(last), 0, -1
    for what, is_told in steps:
        if what == "new line":
            line = Line([one.leg.last_request for one in line.legs])
            continue
        agrees = what == "likeliest" and newest_row == max(one.leg.last_request for one in line.legs)
        if what == "other":
            number = line.other()
        else:
            position += 2 if what == "elsewhere" else 1
            number = line.row(position, 9 if what == "another" else 7, likeliest=7 if is_told else None)
        if number == newest_row + 1:
            assert agrees
        newest_row = newest_row if what == "other" else number


def test_a_number_that_was_meant_for_a_row_and_never_used_is_not_given_to_another() -> None:
    """The deposit may be used up in between; the stages may have that row under this number already."""
    line = Line([0, 0])
    line.row(5, 7, likeliest=9)
    meant = line.numbers.next_row(6, 9)
    assert line.numbers.next() == meant + 1
    assert line.numbers.next_row(6, 8) > meant
