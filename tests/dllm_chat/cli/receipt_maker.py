"""A receipt that was never served: records of a chain in memory, proved against headers that a test signs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dllm_protocol import state_keys
from dllm_protocol.assignment import leg_entries
from dllm_protocol.header import Header
from dllm_protocol.ics23_codec import encode_commitment_proof
from dllm_protocol.pricing import client_price
from dllm_protocol.receipt import (
    BADGE_LOCAL,
    RECEIPT_VERSION,
    ProvedRecord,
    Receipt,
    ReceiptBody,
    Served,
    sign_receipt,
    text_hash,
)
from light_node.trust_store import TrustStore
from tests.dllm_protocol.reference_tree import reference_existence
from tests.full_node.state_machine.world import MODEL, World, kept, provider_id, signer
from tests.light_node.signed_chain import SignedChain

REPLY = "a chain of blocks"


@dataclass(frozen=True)
class Made:
    """A receipt and the chain that it belongs to."""

    receipt: Receipt
    chain: SignedChain
    header: Header

    def trust(self, home: Path, *heights: int) -> None:
        """Make the home believe the chain's headers at these heights."""
        with TrustStore(home / "data" / "embedded" / "light.db", self.chain.chain_id) as store:
            for height in heights:
                store.add(self.chain.light_block(height))


def make_receipt() -> Made:
    """Two owners, one session of alice's, one answer after an earlier one."""
    world = World()
    served = world.provide("bob")
    world.provide("carol")
    world.block(after_ms=20_000)
    session_id = world.open("alice")
    route = world.route(session_id)
    served = route.stages[0].stage.provider
    owner = next(name for name in ("bob", "carol") if provider_id(name) == served)
    before = world.voucher(session_id, 1, {served: kept(100)})
    after = world.voucher(session_id, 2, {served: kept(160)})
    share = world.session(session_id).community_share_ppm
    chain = SignedChain(chain_id=world.chain_id)
    chain.add(changes=world.reader.values)
    chain.grow(2)
    header = chain.blocks[2].header
    entry = leg_entries(route)[served][0]
    keys = [
        state_keys.session(session_id),
        state_keys.route(session_id),
        state_keys.model(MODEL),
        state_keys.provider(served),
    ]
    body = ReceiptBody(
        version=RECEIPT_VERSION,
        chain_id=world.chain_id,
        badge=BADGE_LOCAL,
        model=MODEL,
        session=session_id,
        asked_ms=1_790_000_000_000,
        prompt_hash=text_hash("user\x00What is it?"),
        reply_hash=text_hash(REPLY),
        prompt_tokens=12,
        completion_tokens=60,
        cost_udllm=client_price(after.voucher.payments_udllm, share)
        - client_price(before.voucher.payments_udllm, share),
        fees_udllm=65,
        served=(Served(served, entry.first_layer, entry.end_layer),),
        voucher_before=before,
        voucher_after=after,
        acks=(world.ack(owner, after.voucher),),
        proof_height=1,
        header=header.encode(),
        records=tuple(_proved(chain, key) for key in keys),
        transactions=(b"t" * 32,),
        note="",
    )
    return Made(sign_receipt(signer("session 1"), body), chain, header)


def resigned(made: Made, **changes: object) -> Receipt:
    """The receipt with other contents, signed anew by the session's own key."""
    body = replace(made.receipt.body, **changes)  # type: ignore[arg-type]  # fields by name, of many types
    return sign_receipt(signer("session 1"), body)


def _proved(chain: SignedChain, key: bytes) -> ProvedRecord:
    state = chain.states[1]
    return ProvedRecord(key, state[key], encode_commitment_proof(reference_existence(state, key)))
