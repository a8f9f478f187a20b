"""Receipts: made after every answer, kept as canonical bytes, checked offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dllm_chat.paths import write_private
from dllm_protocol import state_keys
from dllm_protocol.assignment import leg_entries, leg_payees, route_hash
from dllm_protocol.encoding import Record
from dllm_protocol.errors import MalformedBytes, NotFound, VerificationFailed
from dllm_protocol.header import Header
from dllm_protocol.ics23 import verify_membership
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.pricing import client_price, cost_of_rows
from dllm_protocol.receipt import (
    BADGE_LOCAL,
    MAX_RECEIPT_BYTES,
    ProvedRecord,
    Receipt,
    ReceiptBody,
)
from dllm_protocol.records import ModelRecord, Provider, Route, Session
from dllm_protocol.voucher import SignedVoucher, Voucher
from light_node.queries import ProvedReads

SUFFIX = ".receipt"
R = TypeVar("R", bound=Record)


class ReceiptRefused(VerificationFailed):
    """A receipt that does not hold: something was changed, or was never true."""

    code = "E_RECEIPT"


@dataclass(frozen=True, slots=True)
class Checked:
    """A receipt that is consistent in itself."""

    receipt: Receipt
    header: Header
    """The header that its proofs lead to; whether it is part of the chain is for the light node to say."""
    owners: dict[bytes, int]
    """Payments of the last voucher by owner, in udllm."""


async def prove_records(
    reads: ProvedReads, route: Route, paid: Sequence[bytes]
) -> tuple[int, Header, list[ProvedRecord]]:
    """Session, route, model and paid providers, all proved at one height."""
    height = await reads.provable_height()
    keys = [
        state_keys.session(route.session),
        state_keys.route(route.session),
        state_keys.model(route.model),
        *(state_keys.provider(provider) for provider in sorted(paid)),
    ]
    proved: list[ProvedRecord] = []
    header: Header | None = None
    for key in keys:
        found = await reads.read(key, height)
        if found.value is None:
            raise NotFound(f"the chain has no record {key.decode()} at height {height}")
        header = found.header
        proved.append(ProvedRecord(key, found.value, found.proof))
    if header is None:
        raise NotFound("nothing to prove")
    return height, header, proved


def receipt_path(folder: Path, session: bytes, n: int) -> Path:
    """Where the receipt of a session's answer that ended with voucher ``n`` is kept."""
    return folder / f"{session.hex()[:16]}-{n:06d}{SUFFIX}"


def save_receipt(path: Path, receipt: Receipt) -> None:
    """Keep a receipt; crash-safe."""
    write_private(path, receipt.encode())


def load_receipt(path: Path) -> Receipt:
    """Read a receipt's bytes back.

    Raises:
        NotFound: no such file.
        ReceiptRefused: the bytes are not a canonical receipt.
    """
    try:
        if path.stat().st_size > MAX_RECEIPT_BYTES:
            raise ReceiptRefused(f"{path.name} has more than {MAX_RECEIPT_BYTES} bytes: it is no receipt")
        raw = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"cannot read {path}: {error.strerror}", hint="dllm receipt list shows yours"
        ) from error
    try:
        return Receipt.decode(raw)
    except MalformedBytes as error:
        raise ReceiptRefused(
            f"{path.name} is damaged: {error.message}", hint="it was changed or cut short"
        ) from error


def check_receipt(receipt: Receipt) -> Checked:
    """Check everything that needs no network.

    Proofs first (they give the session's key), then the signature over every byte, then vouchers and acks.

    Raises:
        ReceiptRefused: naming what disagrees.
    """
    body = receipt.body
    try:
        header = Header.decode(body.header)
        records = _proved(body, header)
        session = _one(records, state_keys.session(body.session), Session)
        route = _one(records, state_keys.route(body.session), Route)
        model = _one(records, state_keys.model(body.model), ModelRecord)
        if not receipt.signed_by(session.session_key):
            raise ReceiptRefused("the session's key did not sign these bytes: something was changed")
        _same("header chain", header.chain_id, body.chain_id)
        _same("header height", header.height, body.proof_height + 1)
        _same("route hash", route_hash(route).hex(), session.route_hash.hex())
        _same("manifest", manifest_hash(model.manifest).hex(), route.manifest_hash.hex())
        _check_served(body, route)
        _check_vouchers(body, session, route)
        _check_acks(body, records)
    except MalformedBytes as error:
        raise ReceiptRefused(f"the receipt is damaged: {error.message}") from error
    return Checked(receipt, header, _payments(body.voucher_after))


def _proved(body: ReceiptBody, header: Header) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    for proved in body.records:
        verify_membership(proved.proof, header.app_hash, proved.key, proved.value)
        records[proved.key] = proved.value
    return records


def _one(records: dict[bytes, bytes], key: bytes, kind: type[R]) -> R:
    raw = records.get(key)
    if raw is None:
        raise ReceiptRefused(f"the receipt does not prove {key.decode(errors='replace')}")
    return kind.decode(raw)


def _same(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise ReceiptRefused(f"{what}: the receipt says {got}, the proved record {wanted}")


def _check_served(body: ReceiptBody, route: Route) -> None:
    entries = leg_entries(route)
    for served in body.served:
        entry = entries.get(served.provider)
        if entry is None:
            raise ReceiptRefused(f"provider {served.provider.hex()} served, but is not in the proved route")
        _same("layers", (served.first_layer, served.end_layer), (entry[0].first_layer, entry[0].end_layer))


def _check_vouchers(body: ReceiptBody, session: Session, route: Route) -> None:
    entries = leg_entries(route)
    for signed in (body.voucher_before, body.voucher_after):
        if signed is None:
            continue
        voucher = signed.voucher
        if not signed.signed_by(session.session_key):
            raise ReceiptRefused(f"voucher {voucher.n} is not signed with the session's key")
        _same("voucher's chain", voucher.chain_id, body.chain_id)
        _same("voucher's session", voucher.session.hex(), body.session.hex())
        _same("voucher's route", voucher.route_hash.hex(), session.route_hash.hex())
        for leg in voucher.legs:
            if leg.provider not in entries:
                raise ReceiptRefused(
                    f"voucher {voucher.n} pays {leg.provider.hex()}, who is not in the route"
                )
            entry, role = entries[leg.provider]
            _same("payees", leg.payees, leg_payees(entry, role))
            _same("leg's price", leg.cumulative_udllm, cost_of_rows(entry.prices, leg.rows))
    before = body.voucher_before.voucher if body.voucher_before else None
    after = body.voucher_after.voucher
    if before is not None and before.n >= after.n:
        raise ReceiptRefused(f"voucher {before.n} before the answer is not lower than {after.n} after it")
    _same("cost", body.cost_udllm, cost_between(before, after, session.community_share_ppm))


def cost_between(before: Voucher | None, after: Voucher, community_share_ppm: int) -> int:
    """What an answer cost: what the vouchers after it come to beyond those before, for the client.

    Nothing where a leg that failed was taken back further than another one was promised.
    """
    paid_udllm = client_price(before.payments_udllm, community_share_ppm) if before else 0
    return max(0, client_price(after.payments_udllm, community_share_ppm) - paid_udllm)


def _check_acks(body: ReceiptBody, records: dict[bytes, bytes]) -> None:
    for signed in body.acks:
        provider = _one(records, state_keys.provider(signed.ack.provider), Provider)
        if not signed.signed_by(provider.service_key):
            raise ReceiptRefused(
                f"ack {signed.ack.n} is not signed with provider {signed.ack.provider.hex()}'s key"
            )
        _same("ack's session", signed.ack.session.hex(), body.session.hex())
        _same("ack's chain", signed.ack.chain_id, body.chain_id)
        after = body.voucher_after.voucher
        if signed.ack.n == after.n:
            _same("ack's transcript", signed.ack.transcript.hex(), after.transcript.hex())
            owed = {leg.provider: leg.cumulative_udllm for leg in after.legs}
            _same("ack's amount", signed.ack.cumulative_udllm, owed.get(signed.ack.provider, 0))


def _payments(signed: SignedVoucher) -> dict[bytes, int]:
    owners: dict[bytes, int] = {}
    for leg in signed.voucher.legs:
        for payee in leg.payees:
            share = leg.cumulative_udllm * payee.share_ppm // 1_000_000
            owners[payee.owner] = owners.get(payee.owner, 0) + share
    return owners


def badge_name(badge: int) -> str:
    """``LOCAL`` or ``NETWORK``."""
    return "LOCAL" if badge == BADGE_LOCAL else "NETWORK"
