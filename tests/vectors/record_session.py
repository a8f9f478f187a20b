"""Record `session.json`: a whole handshake and its first frames from fixed seeds. Run only when the format changes.

python -m tests.vectors.record_session
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dllm_protocol.address import address_of
from dllm_protocol.assignment import leg_entries, route_hash, session_id_of
from dllm_protocol.messages import ROW_KEPT, ROW_PROMPT
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Route, RouteStage
from dllm_protocol.sealing import SealingKey
from dllm_protocol.session.acceptance import legs_of
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ClientHandshake, ProviderHandshake
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.session.provider import DecodeRows, ProviderLeg, Standing, StoreVoucher, Terms
from dllm_protocol.signing import SeedSigner

VECTORS = Path(__file__).parent / "session.json"
CHAIN_ID = "vectors-00000000"
SHARE_PPM = 100_000
DEPOSIT_UDLLM = 1_000_000
SEEDS = {
    name: bytes([number]) * 32
    for number, name in enumerate(
        (
            "account",
            "session",
            "service",
            "sealing",
            "client_ephemeral",
            "provider_ephemeral",
            "transcript_secret",
        ),
        1,
    )
}


def record() -> dict[str, Any]:
    """Every byte that the two sides exchange in a short session."""
    session_key, service = SeedSigner(SEEDS["session"]), SeedSigner(SEEDS["service"])
    sealing = SealingKey(SEEDS["sealing"])
    account = address_of(SeedSigner(SEEDS["account"]).public_key)
    session = session_id_of(account, session_key.public_key)
    entry = BookEntry(b"\x0a" * 20, b"\x0b" * 20, 0, 4, RowPrices(200, 2000, 2000, 200), 8, 788_675)
    book = OfferBook("vector-model", 7, (entry,))
    route = Route(
        session,
        book.model,
        b"\x0c" * 32,
        book.epoch,
        book_hash(book),
        b"\x0d" * 32,
        (),
        (RouteStage(entry, None),),
    )
    ledger = Ledger(
        chain_id=CHAIN_ID,
        route=route,
        session_key=session_key,
        deposit_udllm=DEPOSIT_UDLLM,
        community_share_ppm=SHARE_PPM,
        state=fresh_state(session),
    )
    handshake = ClientHandshake(
        chain_id=CHAIN_ID,
        provider=entry.provider,
        session=session,
        service_key=service.public_key,
        sealing_key=sealing.public_key,
        ephemeral_seed=SEEDS["client_ephemeral"],
    )
    client = ClientLeg(
        handshake,
        provider=entry.provider,
        service_key=service.public_key,
        session_key=session_key,
        ledger=ledger,
        transcript_secret=SEEDS["transcript_secret"],
    )
    theirs = ProviderHandshake(
        client.first_message, chain_id=CHAIN_ID, provider=entry.provider, sealing_key=sealing
    )
    hello, stream, hash_of_handshake = theirs.answer(service, SEEDS["provider_ephemeral"])
    own, role = leg_entries(route)[entry.provider]
    terms = Terms(
        CHAIN_ID,
        session,
        session_key.public_key,
        route_hash(route),
        DEPOSIT_UDLLM,
        SHARE_PPM,
        own,
        role,
        legs_of(route),
    )
    provider = ProviderLeg(terms, Standing(), stream, hash_of_handshake, service)
    frames = [("client hello", client.first_message), ("provider hello", hello)]
    frames.append(("claim", client.take_hello(hello)))
    list(provider.receive(frames[-1][1]))
    frames.append(("ready", provider.ready(context_rows=512, held_rows=0, held_digest=bytes(32), top_k=64)))
    client.receive(frames[-1][1])
    frames += _turn(client, provider)
    return {
        "seeds": {name: seed.hex() for name, seed in SEEDS.items()},
        "chain_id": CHAIN_ID,
        "session": session.hex(),
        "book_hash": book_hash(book).hex(),
        "route": route.encode().hex(),
        "route_hash": route_hash(route).hex(),
        "handshake_hash": hash_of_handshake.hex(),
        "frames": [{"what": what, "hex": raw.hex()} for what, raw in frames],
        "transcript": client.transcript.head.hex(),
        "outputs": client.transcript.outputs.hex(),
        "last_voucher": ledger.state.last_voucher.encode().hex() if ledger.state.last_voucher else "",
        "last_ack": ledger.state.acks[0].encode().hex(),
        "spent_udllm": ledger.spent_udllm,
    }


def _turn(client: ClientLeg, provider: ProviderLeg) -> list[tuple[str, bytes]]:
    """A prompt of three rows, one kept row, and the voucher that seals the turn."""
    frames: list[tuple[str, bytes]] = []
    for position, ids, kind in ((0, [5, 6, 7], ROW_PROMPT), (3, [9], ROW_KEPT)):
        _, asked = client.decode(position, ids, kind=kind, top_k=2)
        frames.append(("voucher and decode", asked))
        for order in provider.receive(asked):
            if isinstance(order, StoreVoucher):
                frames.append(("ack", provider.acknowledge()))
            elif isinstance(order, DecodeRows):
                last = position + len(ids) - 1
                given = provider.output(order.request, last, [9, 8], [1.5, -0.25], 1.75, last=True)
                frames.append(("output and done", given))
            else:
                raise AssertionError(order)
            client.receive(frames[-1][1])
    sealed = client.seal_turn()
    if sealed is None:
        raise AssertionError("a turn with rows has something to seal")
    frames.append(("voucher that seals the turn", sealed))
    list(provider.receive(sealed))
    frames.append(("ack", provider.acknowledge()))
    client.receive(frames[-1][1])
    return frames


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(record(), indent=1) + "\n")
