"""What rows cost, what a session costs its client, and what is left for the community.

The unit of price is a *row decoded*: one position of one sequence through one leg's layers, all of them. An offer of
a slice quotes for its slice, so that rows weigh by layers because a slice may ask no more than its layers' part of
what the whole model may. Prices are in udllm per 1,000 rows, so that cheap models need no fractions.
"""

from __future__ import annotations

from dllm_protocol.encoding import U64, Record, Unsigned, record, wire

ROWS_PER_PRICE = 1000
PPM = 1_000_000

_PRICE = Unsigned(10**15)


@record
class RowPrices(Record):
    """Price of each kind of row, in udllm per 1,000 rows."""

    prompt_udllm: int = wire(1, _PRICE)
    """Rows of the client's text, decoded many at a time."""
    kept_udllm: int = wire(2, _PRICE)
    """Rows of tokens that the client sampled and kept."""
    drafted_udllm: int = wire(3, _PRICE)
    """Rows decoded ahead on a guess, kept or not."""
    replayed_udllm: int = wire(4, _PRICE)
    """Rows decoded again because a leg took over from another."""

    def within(self, limit: RowPrices) -> bool:
        """Whether no price exceeds the same price of ``limit``."""
        return (
            self.prompt_udllm <= limit.prompt_udllm
            and self.kept_udllm <= limit.kept_udllm
            and self.drafted_udllm <= limit.drafted_udllm
            and self.replayed_udllm <= limit.replayed_udllm
        )


def part_of(prices: RowPrices, layers: int, all_layers: int) -> RowPrices:
    """The part of a whole model's prices that falls on some of its layers, each rounded down.

    Slices that cover a model exactly come to no more than the model's prices, if each asks its part at most.
    """
    if layers == all_layers:
        return prices
    return RowPrices(
        prices.prompt_udllm * layers // all_layers,
        prices.kept_udllm * layers // all_layers,
        prices.drafted_udllm * layers // all_layers,
        prices.replayed_udllm * layers // all_layers,
    )


def whole_of(prices: RowPrices, layers: int, all_layers: int) -> RowPrices:
    """The least prices of a whole model whose `part_of` for so many layers admits ``prices``."""
    return RowPrices(
        -(-prices.prompt_udllm * all_layers // layers),
        -(-prices.kept_udllm * all_layers // layers),
        -(-prices.drafted_udllm * all_layers // layers),
        -(-prices.replayed_udllm * all_layers // layers),
    )


@record
class RowCounts(Record):
    """How many rows of each kind, cumulative over a session's leg."""

    prompt: int = wire(1, U64)
    kept: int = wire(2, U64)
    drafted: int = wire(3, U64)
    replayed: int = wire(4, U64)

    @property
    def total(self) -> int:
        """Rows of all kinds."""
        return self.prompt + self.kept + self.drafted + self.replayed

    def plus(self, other: RowCounts) -> RowCounts:
        """Both, added kind by kind."""
        return RowCounts(
            self.prompt + other.prompt,
            self.kept + other.kept,
            self.drafted + other.drafted,
            self.replayed + other.replayed,
        )

    def minus(self, other: RowCounts) -> RowCounts:
        """What is left when the rows of ``other`` are taken out, kind by kind."""
        return RowCounts(
            self.prompt - other.prompt,
            self.kept - other.kept,
            self.drafted - other.drafted,
            self.replayed - other.replayed,
        )

    def more_of(self, other: RowCounts) -> RowCounts:
        """Of each kind the larger of both counts."""
        return RowCounts(
            max(self.prompt, other.prompt),
            max(self.kept, other.kept),
            max(self.drafted, other.drafted),
            max(self.replayed, other.replayed),
        )

    def less_of(self, other: RowCounts) -> RowCounts:
        """Of each kind the smaller of both counts."""
        return RowCounts(
            min(self.prompt, other.prompt),
            min(self.kept, other.kept),
            min(self.drafted, other.drafted),
            min(self.replayed, other.replayed),
        )

    def covers(self, other: RowCounts) -> bool:
        """Whether no kind counts fewer rows than in ``other``."""
        return (
            self.prompt >= other.prompt
            and self.kept >= other.kept
            and self.drafted >= other.drafted
            and self.replayed >= other.replayed
        )


NO_ROWS = RowCounts(0, 0, 0, 0)


def cost_of_rows(prices: RowPrices, rows: RowCounts) -> int:
    """What a leg is owed for its rows: ⌈Σ price·rows / 1000⌉ udllm. Rounding is once, over the cumulative sum."""
    thousandfold = (
        prices.prompt_udllm * rows.prompt
        + prices.kept_udllm * rows.kept
        + prices.drafted_udllm * rows.drafted
        + prices.replayed_udllm * rows.replayed
    )
    return -(-thousandfold // ROWS_PER_PRICE)


def client_price(payments_udllm: int, community_share_ppm: int) -> int:
    """What the client pays for ``payments_udllm`` to owners: ⌈payments / (1 − share)⌉ (DESIGN section 3)."""
    return -(-payments_udllm * PPM // (PPM - community_share_ppm))


def affordable_payments(price_udllm: int, community_share_ppm: int) -> int:
    """The largest payments whose `client_price` is at most ``price_udllm``."""
    return price_udllm * (PPM - community_share_ppm) // PPM


def reference_cost(prices: RowPrices) -> int:
    """One figure to compare offers by: 1,000 prompt rows and 1,000 kept rows, in udllm."""
    return prices.prompt_udllm + prices.kept_udllm
