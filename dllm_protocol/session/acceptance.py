"""What a provider accepts as payment: a voucher that the chain will take and that gives its leg no less than before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dllm_protocol.assignment import leg_entries, leg_payees
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import NO_ROWS, RowCounts, client_price, cost_of_rows
from dllm_protocol.records import Route
from dllm_protocol.voucher import SignedVoucher, VoucherLeg


class VoucherRefused(ChannelRefused):
    """A voucher that does not pay: wrong session, route, number, price, signature or beyond the deposit."""

    code = "E_VOUCHER"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the provider proved on chain about the session before it serves."""

    chain_id: str
    session: bytes
    session_key: bytes
    route_hash: bytes
    deposit_udllm: int
    community_share_ppm: int
    entry: BookEntry
    """Its own offer in the route."""
    role: int
    """ROLE_STAGE or ROLE_STANDBY."""
    legs: Mapping[bytes, BookEntry]
    """All providers of the route, with their offers in it."""
    claimed: tuple[tuple[bytes, int], ...] = ()
    """What was claimed for each leg so far: provider and amount in udllm. No voucher takes it back."""

    @property
    def is_first(self) -> bool:
        """Whether token ids come in: the other stages take hidden states."""
        return self.entry.first_layer == 0

    def stands_before(self, provider: bytes) -> bool:
        """Whether a provider of the route serves the layers up to this one's first."""
        other = self.legs.get(provider)
        return other is not None and other.end_layer == self.entry.first_layer

    def stands_behind(self, provider: bytes) -> bool:
        """Whether a provider of the route serves the layers from this one's last on."""
        other = self.legs.get(provider)
        return other is not None and other.first_layer == self.entry.end_layer

    def closes_ring(self, provider: bytes) -> bool:
        """Whether of this one and another provider of the route one has its first layers and one its last."""
        other = self.legs.get(provider)
        if other is None or other.provider == self.entry.provider:
            return False
        end = max(leg.end_layer for leg in self.legs.values())
        pairs = ((self.entry, other), (other, self.entry))
        return any(
            one.first_layer == 0 and one.end_layer < end and two.first_layer > 0 and two.end_layer == end
            for one, two in pairs
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What the provider stored about the session: survives restarts."""

    voucher: SignedVoucher | None = None
    served: RowCounts = NO_ROWS


def check_voucher(signed: SignedVoucher, terms: Terms, standing: Standing) -> None:
    """Refuse a voucher that the chain would refuse, or that takes back what an earlier one gave this leg.

    Raises:
        VoucherRefused: naming both values.
    """
    voucher = signed.voucher
    last = standing.voucher.voucher.n if standing.voucher else 0
    for what, got, wanted in (
        ("chain", voucher.chain_id, terms.chain_id),
        ("session", voucher.session.hex(), terms.session.hex()),
        ("route", voucher.route_hash.hex(), terms.route_hash.hex()),
    ):
        if got != wanted:
            raise VoucherRefused(f"the voucher is for {what} {got}, this is {wanted}")
    if voucher.n <= last:
        raise VoucherRefused(f"voucher {voucher.n} comes after voucher {last}")
    if not signed.signed_by(terms.session_key):
        raise VoucherRefused("the voucher is not signed with the session's key")
    providers = [leg.provider for leg in voucher.legs]
    if providers != sorted(set(providers)) or not terms.legs.keys() >= set(providers):
        raise VoucherRefused("the voucher's legs are not providers of the route in ascending order")
    owed = dict(terms.claimed)
    for leg in voucher.legs:
        owed[leg.provider] = max(owed.get(leg.provider, 0), leg.cumulative_udllm)
    price = client_price(sum(owed.values()), terms.community_share_ppm)
    if price > terms.deposit_udllm:
        raise VoucherRefused(f"the voucher comes to {price} udllm, the deposit is {terms.deposit_udllm}")
    _checkown_leg(signed, terms, standing)


def _checkown_leg(signed: SignedVoucher, terms: Terms, standing: Standing) -> None:
    leg, before = own_leg(signed, terms), own_leg(standing.voucher, terms)
    if leg is None:
        if before is not None:
            raise VoucherRefused("the voucher drops this provider's leg")
        return
    if leg.payees != leg_payees(terms.entry, terms.role):
        raise VoucherRefused("the voucher pays this leg to others than the route says")
    cost = cost_of_rows(terms.entry.prices, leg.rows)
    if leg.cumulative_udllm != cost:
        raise VoucherRefused(f"the voucher says {leg.cumulative_udllm} udllm, the rows cost {cost}")
    if before is not None and not leg.rows.covers(before.rows):
        raise VoucherRefused(f"the voucher covers {leg.rows.total} rows, an earlier one {before.rows.total}")


def legs_of(route: Route) -> dict[bytes, BookEntry]:
    """All providers of a route, with their offers in it."""
    return {provider: entry for provider, (entry, _) in leg_entries(route).items()}


def own_leg(signed: SignedVoucher | None, terms: Terms) -> VoucherLeg | None:
    """What a voucher says of this provider's leg; None where there is none."""
    if signed is None:
        return None
    return next((leg for leg in signed.voucher.legs if leg.provider == terms.entry.provider), None)
