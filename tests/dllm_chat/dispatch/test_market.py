"""Quotes: never below what vouchers can come to, and refused where they exceed what the person allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.dispatch.market import (
    Market,
    NoProvider,
    TooExpensive,
    foresee,
    limits_of,
    make_quote,
    payment_of,
)
from dllm_chat.session.events import AskOptions
from dllm_chat.session.windows import allowed_in_vain, may_draft
from dllm_protocol.model_manifest import PIECE_FILE, Manifest, Piece
from dllm_protocol.offer_book import BookEntry, OfferBook
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.pricing import RowCounts, RowPrices, client_price, cost_of_rows, part_of
from dllm_protocol.probing.questions import QUESTION_ROWS
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord, RouteStage
from dllm_protocol.session.ledger import WINDOW_DRAFTED_ROWS, WINDOW_KEPT_ROWS

SHARE = 100_000
RESERVE = RowPrices(1_000, 10_000, 10_000, 1_000)
PRICES = st.builds(RowPrices, *([st.integers(0, 1_000)] * 4))


def entry(number: int, prices: RowPrices, *, capacity: int = 2) -> BookEntry:
    return BookEntry(bytes([number]) * 20, bytes([number + 50]) * 20, 0, 4, prices, capacity, 500_000)


def make_market(*entries: BookEntry, loads: dict[bytes, int] | None = None) -> Market:
    manifest = Manifest(
        1,
        "guide",
        "llama",
        4,
        512,
        b"\1" * 32,
        "chatml",
        "MIT",
        RESERVE,
        (Piece(PIECE_FILE, 0, 9, b"\2" * 32),),
    )
    return Market(
        ModelRecord(b"\3" * 20, manifest, 1, MODEL_ACTIVE), OfferBook("guide", 1, entries), loads or {}
    )


def quote(stage: RouteStage, options: AskOptions, prompt_bytes: int = 40) -> int:
    market = make_market(stage.stage)
    return make_quote(
        market,
        (stage,),
        prompt_bytes=prompt_bytes,
        options=options,
        share_ppm=SHARE,
        prefix="dllm",
        fees_udllm=9,
    ).max_cost_udllm


@given(PRICES, PRICES, st.integers(0, 2_000), st.integers(1, 500))
def test_the_most_that_is_quoted_covers_a_failure_at_the_last_token(
    one: RowPrices, other: RowPrices, prompt_bytes: int, max_tokens: int
) -> None:
    stage = RouteStage(entry(1, one), entry(2, other))
    most = quote(stage, AskOptions(max_tokens=max_tokens), prompt_bytes)
    spent = payment_of(one, prompt_bytes, max_tokens, 0)
    replay = payment_of(other, 0, 0, prompt_bytes + max_tokens)
    assert most >= client_price(spent + replay, SHARE)


def test_a_quote_above_what_is_allowed_is_refused_with_both_numbers() -> None:
    stage = RouteStage(entry(1, RESERVE), None)
    with pytest.raises(TooExpensive, match=r"up to \d+ udllm, allowed are 5"):
        quote(stage, AskOptions(max_cost_udllm=5))


@given(PRICES, st.integers(1, 500), st.integers(0, 500))
def test_the_most_that_is_quoted_covers_every_way_of_guessing(
    prices: RowPrices, max_tokens: int, accepted: int
) -> None:
    """However many tokens are drafted rather than kept, and with all that may be drafted in vain."""
    stage = RouteStage(entry(1, prices), None)
    made = make_quote(
        make_market(stage.stage),
        (stage,),
        prompt_bytes=0,
        options=AskOptions(max_tokens=max_tokens),
        share_ppm=SHARE,
        prefix="dllm",
        fees_udllm=0,
    )
    in_vain = made.drafted_in_vain_rows
    assert in_vain == (allowed_in_vain(max_tokens) if may_draft(prices) else 0)
    drafted = min(accepted, max_tokens) + in_vain if in_vain else 0
    kept = max_tokens - (drafted - in_vain) + WINDOW_KEPT_ROWS
    rows = RowCounts(0, kept, drafted + WINDOW_DRAFTED_ROWS if in_vain else 0, 0)
    assert client_price(cost_of_rows(prices, rows), SHARE) <= made.max_cost_udllm


def test_guesses_are_left_out_before_a_quote_is_refused() -> None:
    stage = RouteStage(entry(1, RESERVE), None)
    plain, with_guesses = (
        quote(stage, AskOptions(max_tokens=100, speculation=wanted)) for wanted in (False, True)
    )
    assert plain < with_guesses
    assert quote(stage, AskOptions(max_tokens=100, max_cost_udllm=with_guesses)) == with_guesses
    assert quote(stage, AskOptions(max_tokens=100, max_cost_udllm=with_guesses - 1)) == plain
    with pytest.raises(TooExpensive, match=f"up to {plain} udllm"):
        quote(stage, AskOptions(max_tokens=100, max_cost_udllm=plain - 1))


def test_the_cheapest_free_provider_is_foreseen_with_a_standby_of_another_owner() -> None:
    cheap, dear = RowPrices(1, 1, 1, 1), RowPrices(5, 5, 5, 5)
    market = make_market(entry(1, dear), entry(2, cheap), entry(3, cheap))
    (stage,) = foresee(market, (), NETWORK_PARAMS)
    assert {stage.stage.provider[0], stage.standby.provider[0] if stage.standby else 0} == {2, 3}
    full = make_market(entry(1, dear), entry(2, cheap), loads={entry(2, cheap).provider: 2})
    assert foresee(full, (), NETWORK_PARAMS)[0].stage.provider[0] == 1


def test_nobody_left_is_said_with_the_number_of_offers() -> None:
    market = make_market(entry(1, RESERVE))
    with pytest.raises(NoProvider, match="1 offers, none is free"):
        foresee(market, (entry(1, RESERVE).provider,), NETWORK_PARAMS)


@given(PRICES, PRICES)
def test_the_limits_of_a_session_admit_what_was_quoted_and_nothing_dearer(
    one: RowPrices, other: RowPrices
) -> None:
    limits = limits_of([RouteStage(entry(1, one), entry(2, other))], 4)
    assert one.within(limits) and other.within(limits)
    assert limits.prompt_udllm in (one.prompt_udllm, other.prompt_udllm)
    assert limits.kept_udllm in (one.kept_udllm, other.kept_udllm)


def sliced(number: int, first: int, end: int, price: int) -> BookEntry:
    return replace(entry(number, RowPrices(price, price, price, price)), first_layer=first, end_layer=end)


SLICES = (sliced(1, 0, 1, 7), sliced(2, 1, 4, 20), sliced(3, 1, 4, 29), sliced(4, 0, 4, 40))


def test_a_route_of_several_stages_is_foreseen_and_quoted_stage_by_stage() -> None:
    market = make_market(*SLICES)
    stages = foresee(market, (), replace(NETWORK_PARAMS, stage_penalty_ppm=0))
    assert [one.stage.provider[0] for one in stages] == [1, 2]
    quote = make_quote(
        market,
        stages,
        prompt_bytes=300,
        options=AskOptions(max_tokens=100, speculation=False),
        share_ppm=0,
        prefix="dllm",
        fees_udllm=0,
    )
    first, second = quote.stages
    assert (first.provider.first_layer, first.provider.end_layer, first.prices.kept_udllm) == (0, 1, 7)
    assert (second.provider.first_layer, second.provider.end_layer, second.prices.kept_udllm) == (1, 4, 20)
    assert first.standby is None and second.standby is not None
    assert second.standby.address != second.provider.address
    prompt_rows, half = 116, 50
    assert quote.likely_cost_udllm == sum(-(-price * (prompt_rows + half) // 1000) for price in (7, 20))
    # Every leg once, and the one with a standby twice: whoever takes over decodes all rows again.
    # Three questions: of the line, and of it with either standby.
    kept_rows, all_rows = 100 + WINDOW_KEPT_ROWS + 3 * QUESTION_ROWS, 316 + 100
    most = [-(-price * (316 + kept_rows + all_rows) // 1000) for price in (7, 20)]
    assert quote.max_cost_udllm == sum(most) + -(-29 * (all_rows + kept_rows) // 1000)
    whole = foresee(market, (SLICES[1].provider, SLICES[2].provider), NETWORK_PARAMS)
    assert [one.stage.provider[0] for one in whole] == [4]


def test_a_cover_of_slices_is_foreseen_only_where_it_covers_all_layers() -> None:
    with pytest.raises(NoProvider, match="too few to cover all layers"):
        foresee(make_market(SLICES[1], SLICES[2]), (), NETWORK_PARAMS)


@given(st.lists(st.tuples(st.integers(1, 4), PRICES), min_size=1, max_size=4))
def test_the_limits_of_a_session_admit_every_slice_that_was_quoted(
    slices: list[tuple[int, RowPrices]],
) -> None:
    stages = [
        RouteStage(replace(entry(number, prices), first_layer=0, end_layer=layers), None)
        for number, (layers, prices) in enumerate(slices, 1)
    ]
    limits = limits_of(stages, 4)
    for one, (layers, _) in zip(stages, slices, strict=True):
        assert one.stage.prices.within(part_of(limits, layers, 4))
    for kind in ("prompt_udllm", "kept_udllm", "drafted_udllm", "replayed_udllm"):
        lower = replace(limits, **{kind: getattr(limits, kind) - 1})
        if getattr(limits, kind):
            assert not all(
                one.stage.prices.within(part_of(lower, layers, 4))
                for one, (layers, _) in zip(stages, slices, strict=True)
            )
