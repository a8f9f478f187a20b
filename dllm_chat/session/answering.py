"""The end of an answer: totals, and a receipt that anybody can check offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dllm_chat.session.conversation import Chain, Conversation
from dllm_chat.session.events import Answer
from dllm_chat.session.leg import LegFailed
from dllm_chat.session.receipts import badge_name, prove_records, receipt_path, save_receipt
from dllm_protocol.assignment import leg_entries
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.receipt import RECEIPT_VERSION, ReceiptBody, Served, sign_receipt, text_hash


async def finish_answer(
    chain: Chain,
    conversation: Conversation,
    messages: Sequence[ChatMessage],
    folder: Path,
    *,
    badge: int,
    asked_ms: int,
) -> Answer:
    """Make, sign and keep the receipt; return the answer with everything that people want to know of it."""
    turn, saved, ledger = conversation.turn, conversation.saved, conversation.ledger
    if turn is None or saved is None or ledger is None or turn.prompt is None:
        raise LegFailed("the answer never began")
    voucher = ledger.state.last_voucher
    if voucher is None:
        raise LegFailed("an answer without a voucher cannot be")
    route = saved.route
    paid = [leg.provider for leg in voucher.voucher.legs]
    height, header, records = await prove_records(chain.reads, route, paid)
    spent = conversation.spent
    body = ReceiptBody(
        version=RECEIPT_VERSION,
        chain_id=chain.chain_id,
        badge=badge,
        model=route.model,
        session=route.session,
        asked_ms=asked_ms,
        prompt_hash=text_hash("\x00".join(f"{message.role}\x00{message.text}" for message in messages)),
        reply_hash=text_hash(turn.text),
        prompt_tokens=len(turn.prompt.ids),
        completion_tokens=len(turn.generated),
        cost_udllm=spent.cost_udllm,
        fees_udllm=spent.fees_udllm,
        served=tuple(
            Served(provider, entry.first_layer, entry.end_layer)
            for provider in conversation.served_ids
            for entry, _ in (leg_entries(route)[provider],)
        ),
        voucher_before=conversation.voucher_before,
        voucher_after=voucher,
        acks=ledger.state.acks,
        proof_height=height,
        header=header.encode(),
        records=tuple(records),
        transactions=tuple(conversation.transactions),
        note="",
    )
    path = receipt_path(folder, route.session, voucher.voucher.n)
    save_receipt(path, sign_receipt(chain.purse.session_key(saved.key_index), body))
    return Answer(
        reply=turn.text,
        model=route.model,
        badge=badge_name(badge),
        chain_id=chain.chain_id,
        providers=tuple(conversation.served),
        prompt_tokens=len(turn.prompt.ids),
        completion_tokens=len(turn.generated),
        cost_udllm=spent.cost_udllm,
        fees_udllm=spent.fees_udllm,
        receipt=path,
        verified_height=header.height,
        verified_hash=header.hash().hex().upper(),
        finish_reason=turn.finish_reason,
        drafted_rows=turn.speculation.drafted if turn.speculation else 0,
        accepted_rows=turn.speculation.accepted if turn.speculation else 0,
        close_calls=turn.close_calls,
        links=conversation.links,
    )
