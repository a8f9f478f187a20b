"""What is proposed is what a search through the whole text would find, though nothing is searched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.lookup import MATCH_MAX, SIZES, Lookup, Match

TEXTS = st.lists(st.integers(0, 3), max_size=80)


def searched(tokens: list[int]) -> Match | None:
    """The newest earlier place of the longest indexed n-gram at the end, by looking everywhere."""
    for size in SIZES:
        for source in reversed(range(size, len(tokens))):
            if tokens[source - size : source] == tokens[-size:]:
                most = min(MATCH_MAX, source)
                length = next((n for n in range(most) if tokens[source - 1 - n] != tokens[-1 - n]), most)
                return Match(source, length)
    return None


@given(TEXTS)
def test_the_index_finds_what_a_search_finds(tokens: list[int]) -> None:
    lookup = Lookup()
    for end, token in enumerate(tokens, start=1):
        lookup.append(token)
        assert lookup.match == searched(tokens[:end])
    assert lookup.tokens == tokens and len(lookup) == len(tokens)


@given(TEXTS, st.integers(1, 40))
def test_a_proposal_is_a_copy_of_what_followed_and_repeats_itself_at_the_end(
    tokens: list[int], count: int
) -> None:
    lookup = Lookup(tokens)
    match = lookup.match
    if match is None:
        return
    whole = [*tokens, *lookup.propose(count, match.source)]
    period = len(tokens) - match.source
    assert len(whole) == len(tokens) + count
    assert all(whole[at] == whole[at - period] for at in range(len(tokens), len(whole)))


@given(TEXTS, st.integers(1, 30), st.integers(1, 30))
def test_a_proposal_in_two_parts_is_the_one_in_one_part(tokens: list[int], one: int, other: int) -> None:
    lookup = Lookup(tokens)
    match = lookup.match
    if match is None:
        return
    first = lookup.propose(one, match.source)
    second = lookup.propose(other, match.source + one, first)
    assert [*first, *second] == lookup.propose(one + other, match.source)


def test_a_text_without_repeats_proposes_nothing() -> None:
    assert Lookup(range(1_000)).match is None
    assert Lookup([1, 2, 1]).match is None, "one token says too little"
    assert Lookup([1, 2, 9, 1, 2]).match == Match(2, 2)
