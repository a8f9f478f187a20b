"""What is on offer, proved; and what an answer would cost, before anything is locked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from dllm_chat.sanitize import clean_line
from dllm_chat.session.events import AskOptions, ProviderShare, Quote, QuotedStage
from dllm_chat.session.windows import allowed_in_vain, may_draft
from dllm_protocol import state_keys
from dllm_protocol.actions.sessions import MAX_EXCLUSIONS
from dllm_protocol.address import PROVIDER_SUFFIX, encode_address
from dllm_protocol.assignment import assign, route_seed
from dllm_protocol.errors import NotFound, UsageRefused
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.offer_book import BookEntry, OfferBook
from dllm_protocol.params import Params
from dllm_protocol.pricing import RowCounts, RowPrices, client_price, cost_of_rows, whole_of
from dllm_protocol.probing.questions import QUESTION_ROWS
from dllm_protocol.ranked_book import rank, rules_of
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord, Offer, Route, RouteStage
from dllm_protocol.session.ledger import WINDOW_DRAFTED_ROWS, WINDOW_KEPT_ROWS
from light_node.queries import ProvedReads

BYTES_PER_TOKEN = 3
"""A cautious guess for estimates: English text has about four bytes a token."""


class NoProvider(NotFound):
    """Nobody serves the model under the person's limits."""

    code = "E_NO_PROVIDER"


class TooExpensive(UsageRefused):
    """The quote is above what the person allowed."""

    code = "E_COST"


@dataclass(frozen=True, slots=True)
class Market:
    """Everything proved about one model at one moment."""

    model: ModelRecord
    book: OfferBook
    loads: dict[bytes, int]

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.model.manifest


async def read_market(reads: ProvedReads, model_name: str) -> Market:
    """Model, offer book and loads, proved.

    Raises:
        NotFound: no such model, or nobody offers it.
    """
    model = await reads.model(model_name)
    if model is None:
        known = ", ".join(clean_line(name, 64) for name in await reads.models()) or "none yet"
        raise NotFound(
            f"the network has no model {clean_line(model_name, 64)!r}", hint=f"registered: {known}"
        )
    if model.status != MODEL_ACTIVE:
        raise NotFound(f"model {model_name} is not active any more", hint="choose another model")
    book = await reads.offer_book(model_name)
    loads: dict[bytes, int] = {}
    for entry in book.entries:
        offer = await reads.record(Offer, state_keys.offer(model_name, entry.provider))
        loads[entry.provider] = offer.open_sessions if offer else entry.capacity_sessions
    return Market(model, book, loads)


def foresee(market: Market, exclusions: Collection[bytes], params: Params) -> tuple[RouteStage, ...]:
    """The stages that an OpenSession would get now (up to ties and to what others do first).

    Raises:
        NoProvider
    """
    book = rank(market.book, rules_of(market.manifest, params))
    stages = assign(
        book,
        max_prices=market.manifest.reserve_prices,
        exclusions=exclusions,
        load_of=lambda entry: market.loads.get(entry.provider, 0),
        seed=route_seed(bytes(32), book.book_hash),
    ).stages
    if not stages:
        raise NoProvider(
            f"nobody can serve {market.manifest.name} now: {len(market.book.entries)} offers, none is free "
            "or too few to cover all layers",
            hint="try again in a moment, or choose another model",
        )
    return stages


def foresee_without(
    market: Market, exclusions: Collection[bytes], avoided: Collection[bytes], params: Params
) -> tuple[tuple[RouteStage, ...], frozenset[bytes]]:
    """The same without providers that are better avoided, if the others can serve: (stages, whom to exclude).

    Raises:
        NoProvider
    """
    room = MAX_EXCLUSIONS - len(exclusions)
    wished = frozenset(exclusions) | frozenset(sorted(set(avoided) - set(exclusions))[: max(0, room)])
    try:
        return foresee(market, wished, params), wished
    except NoProvider:
        return foresee(market, exclusions, params), frozenset(exclusions)


def make_quote(
    market: Market,
    stages: Sequence[RouteStage],
    *,
    prompt_bytes: int,
    options: AskOptions,
    share_ppm: int,
    prefix: str,
    fees_udllm: int,
) -> Quote:
    """What an answer may cost.

    Args:
        prompt_bytes: size of the whole conversation as text.
        share_ppm: the community's share.
        fees_udllm: of opening and closing a session, or 0 where one is open.

    Where rows asked for on a guess would bring it above what the person allows, there will be none.

    Raises:
        TooExpensive: more than `AskOptions.max_cost_udllm`.
    """
    prompt_rows = prompt_bytes // BYTES_PER_TOKEN + 16
    likely = client_price(
        sum(payment_of(one.stage.prices, prompt_rows, options.max_tokens // 2, 0) for one in stages),
        share_ppm,
    )
    drafts = options.speculation and may_draft(limits_of(stages, market.manifest.layers))
    in_vain = allowed_in_vain(options.max_tokens) if drafts else 0
    most = _most(stages, prompt_bytes, options.max_tokens, in_vain, share_ppm)
    if in_vain and options.max_cost_udllm is not None and most > options.max_cost_udllm:
        in_vain = 0
        most = _most(stages, prompt_bytes, options.max_tokens, in_vain, share_ppm)
    if options.max_cost_udllm is not None and most > options.max_cost_udllm:
        raise TooExpensive(
            f"the answer may cost up to {most} udllm, allowed are {options.max_cost_udllm}",
            hint="allow more with --max-cost, or ask for fewer tokens with --max-tokens",
        )
    return Quote(
        model=market.manifest.name,
        stages=tuple(
            QuotedStage(
                share_of(one.stage, prefix),
                share_of(one.standby, prefix) if one.standby else None,
                one.stage.prices,
            )
            for one in stages
        ),
        prompt_tokens_estimate=prompt_rows,
        max_tokens=options.max_tokens,
        likely_cost_udllm=likely,
        max_cost_udllm=most,
        deposit_udllm=0,
        fees_udllm=fees_udllm,
        drafted_in_vain_rows=in_vain,
    )


def _most(
    stages: Sequence[RouteStage], prompt_bytes: int, max_tokens: int, in_vain: int, share_ppm: int
) -> int:
    """What an answer costs at most: every stage fails after its last token, and so many rows are drafted in vain."""
    prompt_rows = prompt_bytes + 16
    kept_rows = max_tokens + WINDOW_KEPT_ROWS  # vouchers run ahead by up to a window
    if in_vain:
        kept_rows += in_vain + WINDOW_DRAFTED_ROWS
    if len(stages) > 1:
        # A question is asked of the line first, and then with each standby in it.
        kept_rows += (1 + len(stages)) * QUESTION_ROWS
    replayed_rows = prompt_rows + max_tokens
    # Of several stages each may lose its rows once and go on.
    lost_rows = replayed_rows if len(stages) > 1 else 0
    most = 0
    for one in stages:
        most += payment_of(_dearer(one.stage.prices, in_vain), prompt_rows, kept_rows, lost_rows)
        if one.standby is not None:
            most += payment_of(_dearer(one.standby.prices, in_vain), 0, kept_rows, replayed_rows)
    return client_price(most, share_ppm)


def _dearer(prices: RowPrices, in_vain: int) -> RowPrices:
    """Prices at which a token's row may be a kept or a drafted one, whichever costs more."""
    return replace(prices, kept_udllm=max(prices.kept_udllm, prices.drafted_udllm)) if in_vain else prices


def payment_of(prices: RowPrices, prompt: int, kept: int, replayed: int) -> int:
    """What rows of one leg come to for its owner."""
    return cost_of_rows(prices, RowCounts(prompt, kept, 0, replayed))


def limits_of(stages: Iterable[RouteStage], layers: int) -> RowPrices:
    """The least limits that admit what was quoted: of stages and standbys the dearest for its layers, kind by kind.

    Args:
        layers: the model's number of layers.
    """
    asks = [
        whole_of(entry.prices, entry.end_layer - entry.first_layer, layers)
        for one in stages
        for entry in (one.stage, one.standby)
        if entry is not None
    ]
    return RowPrices(
        max(ask.prompt_udllm for ask in asks),
        max(ask.kept_udllm for ask in asks),
        max(ask.drafted_udllm for ask in asks),
        max(ask.replayed_udllm for ask in asks),
    )


def share_of(entry: BookEntry, prefix: str) -> ProviderShare:
    """An offer as people see it."""
    return ProviderShare(
        address=encode_address(prefix + PROVIDER_SUFFIX, entry.provider),
        owner=encode_address(prefix, entry.owner),
        first_layer=entry.first_layer,
        end_layer=entry.end_layer,
        reputation_ppm=entry.reputation_ppm,
    )


def shares_of(route: Route, prefix: str) -> tuple[ProviderShare, ...]:
    """The stages of a route as people see them."""
    return tuple(share_of(stage.stage, prefix) for stage in route.stages)
