"""Ask, pay, settle, prove: the main job, whole, on one machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_chat.dispatch.market import TooExpensive
from dllm_chat.session.receipts import ReceiptRefused, check_receipt, load_receipt
from dllm_chat.session.service import ChatService
from dllm_protocol.address import decode_address
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.pricing import client_price
from dllm_protocol.receipt import Receipt
from dllm_protocol.records import SESSION_CLOSED
from tests.e2e.machine import GREEDY, Machine, ask


async def whole(service: ChatService) -> int:
    balance = await service.balance()
    return balance.spendable_udllm + balance.in_sessions_udllm


async def owner_balance(service: ChatService, owner: str) -> int:
    account = await service.chain.reads.account(decode_address(owner, service.chain.prefix))
    assert account is not None
    return account.balance_udllm


async def pool(service: ChatService) -> int:
    found = await service.chain.reads.community_pool()
    return found.balance_udllm if found else 0


async def test_an_answer_costs_what_it_says_and_a_tenth_goes_to_the_community(
    shared_machine: Machine,
) -> None:
    async with shared_machine.terminal() as service:
        await service.close_all()
        assert service.badge == "LOCAL"
        start = await whole(service)
        first = (await ask(service, "What is DLLM?")).answer
        assert first.reply.strip()
        assert first.cost_udllm > 0 and first.fees_udllm > 0
        assert start - await whole(service) == first.cost_udllm + first.fees_udllm

        second = (await ask(service, "What is a voucher?")).answer
        assert second.fees_udllm == 0, "the open session is used again"
        between = await whole(service)
        assert start - between == first.cost_udllm + first.fees_udllm + second.cost_udllm

        (serving,) = {share.owner for share in (*first.providers, *second.providers)}
        owner_before, pool_before = await owner_balance(service, serving), await pool(service)
        (closed,) = await service.close_all()
        assert closed.settled
        balance = await service.balance()
        assert balance.in_sessions_udllm == 0
        assert between - balance.spendable_udllm == closed.fee_udllm

        cost = first.cost_udllm + second.cost_udllm
        assert closed.paid_udllm == cost
        earned = await owner_balance(service, serving) - owner_before
        assert client_price(earned, 100_000) == cost, "nine tenths, rounded up against the client"
        assert await pool(service) - pool_before == cost - earned

        session = await service.chain.reads.session(closed.session)
        assert session is not None and session.status == SESSION_CLOSED


async def test_the_receipt_holds_offline_and_no_byte_of_it_can_change(shared_machine: Machine) -> None:
    async with shared_machine.terminal() as service:
        answer = (await ask(service, "Who can read my prompts?")).answer
    receipt = load_receipt(answer.receipt)
    checked = check_receipt(receipt)
    assert checked.receipt.body.cost_udllm == answer.cost_udllm
    assert checked.header.hash().hex().upper() == answer.verified_hash
    assert checked.header.height == answer.verified_height
    raw = answer.receipt.read_bytes()
    assert Receipt.decode(raw) == receipt
    for at in range(0, len(raw), 7):
        changed = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
        answer.receipt.write_bytes(changed)
        with pytest.raises(VerificationFailed):
            check_receipt(load_receipt(answer.receipt))
    answer.receipt.write_bytes(raw[:-1])
    with pytest.raises(ReceiptRefused, match="damaged"):
        load_receipt(answer.receipt)


async def test_a_cost_limit_refuses_before_anything_is_locked(shared_machine: Machine) -> None:
    async with shared_machine.terminal() as service:
        before = await service.balance()
        with pytest.raises(TooExpensive, match="may cost up to"):
            await ask(service, "What is DLLM?", options=replace(GREEDY, max_cost_udllm=1))
        after = await service.balance()
        assert after == replace(before, height=after.height)
