"""The nearness benchmark: on this machine too, honest arithmetic is well within what is allowed."""

from __future__ import annotations

from benchmarks import nearness


def test_honest_arithmetic_is_within_half_of_what_is_allowed() -> None:
    found = {one.name: one for one in nearness.run()}
    assert list(found) == ["nearness/hidden", "nearness/logits", "nearness/questions"]
    for one in found.values():
        # Above zero: the other arithmetic was another one indeed.
        assert 0 < one.ratio < 0.5, one
