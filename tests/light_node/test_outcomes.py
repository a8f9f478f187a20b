"""Included, impossible or unknown: each by proof, whatever the node says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dllm_protocol import records, state_keys
from dllm_protocol.actions import Transfer
from dllm_protocol.address import address_of
from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.refusals import FeeTooLow, InsufficientFunds, SequenceGap, WrongSequence
from dllm_protocol.results import ExecTxResult
from dllm_protocol.transaction import make_body, sign_transaction
from light_node.answers import BroadcastAnswer, TxAnswer
from light_node.errors import AnswerRefused
from light_node.outcomes import Impossible, Included, Outcomes, Unknown
from tests.light_node.conftest import MakeClient
from tests.light_node.signed_chain import CHAIN_ID, ChainSource, SignedChain, signer

PAYER = signer("payer")
ACCOUNT = address_of(PAYER.public_key)


def _tx(sequence: int, amount: int = 5, timeout_height: int = 0) -> bytes:
    body = make_body(
        CHAIN_ID,
        ACCOUNT,
        PAYER.public_key,
        sequence,
        [Transfer(b"\x02" * 20, amount)],
        fee_udllm=10,
        timeout_height=timeout_height,
    )
    return sign_transaction(PAYER, body).encode()


def _account(sequence: int) -> dict[bytes, bytes]:
    return {state_keys.account(ACCOUNT): records.Account(1000, sequence).encode()}


@pytest.fixture
def chain() -> SignedChain:
    """The payer's transactions: 0 in block 3 (success), 1 in block 5 (failed), then quiet to block 8."""
    made = SignedChain(("a", "b", "c"))
    made.add(changes=_account(0))
    made.grow(1)
    made.add([b"somebody else's", _tx(0)], changes=_account(1))
    made.grow(1)
    failed = ExecTxResult(code=InsufficientFunds.abci_code, gas_used=7)
    made.add([_tx(1)], results=[failed], changes=_account(2))
    made.grow(3)
    return made


async def test_an_included_transaction_and_its_success_are_proved(make_client: MakeClient) -> None:
    outcome = await Outcomes(make_client()).outcome(_tx(0))
    assert isinstance(outcome, Included)
    assert (outcome.height, outcome.index, outcome.succeeded) == (3, 1, True)


async def test_a_failure_is_proved_too(make_client: MakeClient) -> None:
    outcome = await Outcomes(make_client()).outcome(_tx(1))
    assert isinstance(outcome, Included)
    assert not outcome.succeeded
    assert outcome.result.code == InsufficientFunds.abci_code


async def test_an_outcome_is_found_although_the_primary_has_died(
    make_client: MakeClient, chain: SignedChain
) -> None:
    dying, one, two = (ChainSource(chain, name) for name in ("dying", "one", "two"))
    client = make_client(dying, [one, two])
    await client.sync()
    dying.offline = True
    outcome = await Outcomes(client).wait_for(_tx(0), timeout_s=60)
    assert isinstance(outcome, Included)
    assert client.primary is not dying
    assert client.witnesses[-1] is dying


async def test_a_transaction_is_handed_to_a_node_that_takes_it(
    make_client: MakeClient, chain: SignedChain
) -> None:
    dead, one, two = (ChainSource(chain, name) for name in ("dead", "one", "two"))
    client = make_client(dead, [one, two])
    await client.sync()
    dead.offline = True
    assert await Outcomes(client).send(_tx(7)) == _tx_hash(_tx(7))
    assert [_tx(7)] in (one.sent, two.sent)


async def test_a_failure_dressed_up_as_success_is_refused(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class ResultLiar(ChainSource):
        async def block_results(self, height: int) -> tuple[ExecTxResult, ...]:
            return tuple(replace(one, code=0) for one in await super().block_results(height))

    with pytest.raises(InvalidBlock, match="results of block 5: claimed"):
        await Outcomes(make_client(ResultLiar(chain))).outcome(_tx(1))


async def test_a_list_of_results_that_is_too_short_is_refused(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class ResultLiar(ChainSource):
        async def block_results(self, height: int) -> tuple[ExecTxResult, ...]:
            return (await super().block_results(height))[:1]

    with pytest.raises(InvalidBlock, match="number of results of block 3: claimed 1, found 2"):
        await Outcomes(make_client(ResultLiar(chain))).outcome(_tx(0))


async def test_an_inclusion_that_is_made_up_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    class TxLiar(ChainSource):
        async def tx(self, wanted: bytes) -> TxAnswer | None:
            real = await super().tx(_tx_hash(_tx(0)))
            assert real is not None
            return replace(real, hash=wanted, tx=_tx(2))

    with pytest.raises(InvalidBlock, match="Merkle proof leaf hash"):
        await Outcomes(make_client(TxLiar(chain))).outcome(_tx(2))

    class AnotherTx(ChainSource):
        async def tx(self, wanted: bytes) -> TxAnswer | None:
            return await super().tx(_tx_hash(_tx(0)))

    client = make_client(AnotherTx(chain))
    with pytest.raises(AnswerRefused):
        await Outcomes(client).outcome(_tx(2))


def _tx_hash(raw: bytes) -> bytes:
    from dllm_protocol.block import tx_hash

    return tx_hash(raw)


async def test_a_node_that_denies_an_inclusion_is_found_out(
    make_client: MakeClient, source: ChainSource
) -> None:
    source.known_txs = False
    for sequence, height in ((0, 3), (1, 5)):
        outcome = await Outcomes(make_client()).outcome(_tx(sequence))
        assert isinstance(outcome, Included)
        assert outcome.height == height


async def test_a_sequence_that_another_transaction_used_is_impossible(make_client: MakeClient) -> None:
    outcome = await Outcomes(make_client()).outcome(_tx(0, amount=6))
    assert isinstance(outcome, Impossible)
    assert "sequence 0 was used by another transaction in block 3" in outcome.reason


async def test_a_timeout_that_passed_is_impossible(make_client: MakeClient) -> None:
    outcome = await Outcomes(make_client()).outcome(_tx(2, timeout_height=6))
    assert isinstance(outcome, Impossible)
    assert "timeout height 6" in outcome.reason


async def test_what_may_still_happen_is_unknown(make_client: MakeClient) -> None:
    for timeout_height in (0, 100):
        outcome = await Outcomes(make_client()).outcome(_tx(2, timeout_height=timeout_height))
        assert isinstance(outcome, Unknown)
        assert "ask again" in outcome.hint
    searched_too_late = await Outcomes(make_client()).outcome(_tx(0, amount=6), since_height=4)
    assert isinstance(searched_too_late, Unknown)
    assert "since_height" in searched_too_late.hint


async def test_a_replayed_copy_does_not_hide_the_one_that_counted(
    make_client: MakeClient, chain: SignedChain
) -> None:
    chain.add([_tx(0)], results=[ExecTxResult(code=WrongSequence.abci_code)])
    chain.grow(2)

    class LateCopy(ChainSource):
        async def tx(self, wanted: bytes) -> TxAnswer | None:
            real = await super().tx(wanted)
            assert real is not None
            alone = SignedChain(("a",))
            alone.add([_tx(0)])
            only = await ChainSource(alone).tx(wanted)
            assert only is not None
            return replace(real, height=9, index=0, proof=only.proof)

    outcome = await Outcomes(make_client(LateCopy(chain))).outcome(_tx(0))
    assert isinstance(outcome, Included)
    assert (outcome.height, outcome.succeeded) == (3, True)


async def test_a_copy_that_came_too_early_does_not_hide_the_one_that_counted(
    make_client: MakeClient, chain: SignedChain
) -> None:
    # One block with the transaction twice: refused before its turn, carried out after its predecessor.
    gap = ExecTxResult(code=SequenceGap.abci_code)
    chain.add(
        [_tx(3), _tx(2), _tx(3)],
        results=[gap, ExecTxResult(gas_used=7), ExecTxResult(gas_used=7)],
        changes=_account(4),
    )
    chain.grow(2)
    outcome = await Outcomes(make_client()).outcome(_tx(3))
    assert isinstance(outcome, Included)
    assert (outcome.index, outcome.succeeded) == (2, True)


async def test_a_copy_that_could_not_pay_its_fee_may_still_be_carried_out(
    make_client: MakeClient, chain: SignedChain
) -> None:
    chain.add([_tx(2, timeout_height=100)], results=[ExecTxResult(code=InsufficientFunds.abci_code)])
    chain.grow(2)
    outcome = await Outcomes(make_client()).outcome(_tx(2, timeout_height=100))
    assert isinstance(outcome, Unknown)
    assert "may still be included" in outcome.reason


async def test_waiting_ends_when_the_chain_goes_on(make_client: MakeClient, chain: SignedChain) -> None:
    class Announcing(ChainSource):
        async def new_heights(self) -> AsyncIterator[int]:
            await asyncio.sleep(0)
            for _ in range(2):
                if chain.height == 8:
                    chain.add([_tx(2)], changes=_account(3))
                else:
                    chain.grow(1)
                yield chain.height

    outcome = await Outcomes(make_client(Announcing(chain))).wait_for(_tx(2))
    assert isinstance(outcome, Included)
    assert outcome.height == 9


async def test_waiting_on_a_node_that_is_away_ends_in_unknown(
    make_client: MakeClient, source: ChainSource
) -> None:
    client = make_client()
    await client.sync()
    source.offline = True
    outcome = await Outcomes(client).wait_for(_tx(2), timeout_s=0.0)
    assert isinstance(outcome, Unknown)
    assert "cannot talk to" in outcome.reason


async def test_sending_returns_the_hash_or_the_named_refusal(
    make_client: MakeClient, source: ChainSource, chain: SignedChain
) -> None:
    raw = _tx(2)
    assert await Outcomes(make_client()).send(raw) == _tx_hash(raw)
    assert source.sent == [raw]

    class Refusing(ChainSource):
        async def broadcast_tx_sync(self, tx: bytes) -> BroadcastAnswer:
            return BroadcastAnswer(FeeTooLow.abci_code, "fee 10 is below 20", _tx_hash(tx))

    with pytest.raises(FeeTooLow, match="below 20"):
        await Outcomes(make_client(Refusing(chain))).send(raw)
