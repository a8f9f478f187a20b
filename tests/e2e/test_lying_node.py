"""A node between the client and the chain may say what it likes: it is believed nothing that is not proved."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.embedded.chain import PLAY_MONEY_UDLLM
from dllm_chat.session.service import ChatService
from dllm_protocol import state_keys
from dllm_protocol.actions import Transfer
from dllm_protocol.block import tx_hash
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.errors import DllmError, VerificationFailed
from dllm_protocol.offer_book import OfferBook
from dllm_protocol.records import Account
from dllm_protocol.transaction import make_body
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.outcomes import Included, Outcomes
from light_node.queries import ProvedReads
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.e2e.lying_node import Hidden, Lie, Params, from_base64, lying_node, to_base64
from tests.e2e.machine import Machine

MODEL = "guide"


@asynccontextmanager
async def deceived(
    service: ChatService, folder: Path, *lies: Lie
) -> AsyncIterator[tuple[LightClient, ProvedReads]]:
    """A light node that knows the right trust root and asks a lying node."""
    bundle: NetworkBundle = service.bundle
    async with lying_node(bundle.sources[0], *lies) as url:
        client = LightClient(
            bundle.chain_id,
            TrustOptions(bundle.trust_height, bundle.trust_hash),
            TrustStore(folder / "light.db", bundle.chain_id),
            RpcSource(url),
            clock=SystemClock(),
        )
        try:
            yield client, ProvedReads(client)
        finally:
            await client.close()


def on_state(key: bytes, change: Callable[[dict[str, Any], Params], None]) -> Lie:
    """A lie about the answer to one key."""

    def answer(result: Any, params: Params) -> Any:
        if bytes.fromhex(params["data"]) == key:
            change(result["response"], params)
        return result

    return Lie("abci_query", answer=answer)


def asking_other(key: bytes, instead: dict[str, Any]) -> Lie:
    """Another question than the client's goes to the real node."""

    def ask(params: Params) -> Params:
        return params | instead if bytes.fromhex(params["data"]) == key else params

    return Lie("abci_query", ask=ask)


async def test_a_wrong_value_is_refused(shared_machine: Machine, tmp_path: Path) -> None:
    async with shared_machine.terminal() as service:
        me = service.chain.purse.account
        rich = Account.decode((await service.chain.reads.read(state_keys.account(me))).value or b"")
        richer = replace(rich, balance_udllm=rich.balance_udllm * 2)

        def change(response: dict[str, Any], _: Params) -> None:
            assert Account.decode(from_base64(response["value"])).balance_udllm == rich.balance_udllm
            response["value"] = to_base64(richer.encode())

        lie = on_state(state_keys.account(me), change)
        async with deceived(service, tmp_path, lie) as (_, reads):
            with pytest.raises(VerificationFailed, match="value") as refused:
                await reads.account(me)
            assert refused.value.code == "E_PROOF"
            assert (await reads.models()) == (MODEL,), "the rest of what it says is fine"


async def test_another_key_is_refused_and_so_is_one_that_was_renamed(
    shared_machine: Machine, tmp_path: Path
) -> None:
    async with shared_machine.terminal() as service:
        mine = state_keys.account(service.chain.purse.account)
        book = await service.chain.reads.offer_book(MODEL)
        theirs = state_keys.account(book.entries[0].owner)
        other = asking_other(mine, {"data": theirs.hex()})
        async with deceived(service, tmp_path / "1", other) as (_, reads):
            with pytest.raises(VerificationFailed, match=r"asked for key .* answered for"):
                await reads.account(service.chain.purse.account)
        renamed = on_state(mine, lambda response, params: response.update(key=to_base64(mine)))
        async with deceived(service, tmp_path / "2", other, renamed) as (_, reads):
            with pytest.raises(VerificationFailed, match="key") as refused:
                await reads.account(service.chain.purse.account)
            assert refused.value.code == "E_PROOF"


async def test_hiding_a_record_is_refused(shared_machine: Machine, tmp_path: Path) -> None:
    async with shared_machine.terminal() as service:
        mine = state_keys.account(service.chain.purse.account)
        hidden = on_state(mine, lambda response, _: response.update(value=None))
        async with deceived(service, tmp_path / "1", hidden) as (_, reads):
            with pytest.raises(VerificationFailed):
                await reads.account(service.chain.purse.account)
        # An honest absence of something else, sold as the absence of this.
        nobody = state_keys.account(b"\x99" * 20)
        other = asking_other(mine, {"data": nobody.hex()})
        renamed = on_state(mine, lambda response, _: response.update(key=to_base64(mine)))
        async with deceived(service, tmp_path / "2", other, renamed) as (_, reads):
            with pytest.raises(VerificationFailed):
                await reads.account(service.chain.purse.account)
            assert await reads.account(b"\x99" * 20) is None, "true absence is proved"


async def test_an_old_height_is_refused_and_so_is_one_that_was_renamed(
    shared_machine: Machine, tmp_path: Path
) -> None:
    async with shared_machine.terminal() as service:
        me = service.chain.purse.account
        old = (await service.chain.reads.read(state_keys.account(me))).height
        await service.chain.sender.send(service.chain.purse, (Transfer(b"\x55" * 20, 5),))
        asked_old = asking_other(state_keys.account(me), {"height": str(old)})
        async with deceived(service, tmp_path / "1", asked_old) as (_, reads):
            with pytest.raises(VerificationFailed, match=rf"height \d+, answered for {old}"):
                await reads.account(me)

        def rename(response: dict[str, Any], params: Params) -> None:
            response["height"] = params["height"]

        renamed = on_state(state_keys.account(me), rename)
        async with deceived(service, tmp_path / "2", asked_old, renamed) as (_, reads):
            with pytest.raises(VerificationFailed) as refused:
                await reads.account(me)
            assert refused.value.code == "E_PROOF"


async def test_a_shortened_offer_list_is_refused(shared_machine: Machine, tmp_path: Path) -> None:
    async with shared_machine.terminal() as service:
        book = await service.chain.reads.offer_book(MODEL)
        assert len(book.entries) == 2

        def shorten(response: dict[str, Any], params: Params) -> None:
            honest = OfferBook.decode(from_base64(response["value"]))
            response["value"] = to_base64(replace(honest, entries=honest.entries[:1]).encode())

        def on_list(result: Any, params: Params) -> Any:
            if bytes.fromhex(params["data"]).startswith(state_keys.offer_list(MODEL, 0).rsplit(b"/", 1)[0]):
                shorten(result["response"], params)
            return result

        async with deceived(service, tmp_path, Lie("abci_query", answer=on_list)) as (_, reads):
            with pytest.raises(VerificationFailed, match="hash") as refused:
                await reads.offer_book(MODEL)
            assert refused.value.code == "E_OFFER_BOOK"


@pytest.mark.parametrize("field", ["app_hash", "time", "last_results_hash", "validators_hash", "chain_id"])
async def test_a_forged_header_is_refused(shared_machine: Machine, tmp_path: Path, field: str) -> None:
    forged = {
        "app_hash": "AB" * 32,
        "time": "2026-01-01T00:00:00.000000001Z",
        "last_results_hash": "CD" * 32,
        "validators_hash": "EF" * 32,
        "chain_id": "local-00000000",
    }
    async with shared_machine.terminal() as service:
        await service.chain.sender.send(service.chain.purse, (Transfer(b"\x56" * 20, 5),))
        root = service.bundle.trust_height

        def forge(result: Any, _: Params) -> Any:
            header = result["signed_header"]["header"]
            if int(header["height"]) > root:
                header[field] = forged[field]
            return result

        async with deceived(service, tmp_path, Lie("commit", answer=forge)) as (client, _):
            with pytest.raises(DllmError) as refused:
                await client.sync()
            assert refused.value.code == "E_HEADER", refused.value
            assert client.status().height <= root
            assert client.status().problem


async def test_another_root_than_the_bundles_is_refused(shared_machine: Machine, tmp_path: Path) -> None:
    async with shared_machine.terminal() as service:
        root = service.bundle.trust_height
        older = Lie("commit", ask=lambda params: params | {"height": str(root - 1)})

        def rename(result: Any, params: Params) -> Any:
            result["signed_header"]["header"]["height"] = str(root)
            return result

        async with deceived(service, tmp_path / "1", older) as (client, _):
            with pytest.raises(VerificationFailed, match=rf"asked {root}, answered {root - 1}"):
                await client.sync()
        async with deceived(service, tmp_path / "2", older, Lie("commit", answer=rename)) as (client, _):
            with pytest.raises(VerificationFailed, match="trust root"):
                await client.sync()


async def test_a_hidden_transaction_is_found_and_a_changed_result_refused(
    shared_machine: Machine, tmp_path: Path
) -> None:
    async with shared_machine.terminal() as service:
        chain = service.chain
        since = (await chain.reads.client.sync()).height
        account = await chain.reads.account(chain.purse.account)
        assert account is not None and account.balance_udllm < PLAY_MONEY_UDLLM + 1
        action = Transfer(b"\x57" * 20, 7)
        body = make_body(
            service.chain_id,
            chain.purse.account,
            chain.purse.public_key,
            account.sequence,
            (action,),
            fee_udllm=await chain.sender.fee_of(chain.purse, (action,)),
            timeout_height=since + 20,
        )
        raw = chain.purse.sign(body).encode()

        def hide(result: Any, _: Params) -> Any:
            raise Hidden(f"tx ({tx_hash(raw).hex()}) not found")

        hiding = Lie("tx", answer=hide)
        async with deceived(service, tmp_path / "1", hiding) as (client, _):
            outcomes = Outcomes(client)
            await outcomes.send(raw)
            found = await outcomes.wait_for(raw, since_height=since)
            assert isinstance(found, Included), "the account's proved sequence leads to the block"
            assert found.succeeded

        def without_it(result: Any, _: Params) -> Any:
            result["block"]["data"]["txs"] = []
            return result

        async with deceived(service, tmp_path / "2", hiding, Lie("block", answer=without_it)) as (client, _):
            with pytest.raises(DllmError, match=r"block|data") as refused:
                await Outcomes(client).outcome(raw, since_height=since)
            assert refused.value.exit_code == 8, json.dumps([refused.value.code, refused.value.message])

        def failed(result: Any, _: Params) -> Any:
            for one in result["txs_results"] or []:
                one["code"] = 5
            return result

        async with deceived(service, tmp_path / "3", Lie("block_results", answer=failed)) as (client, _):
            with pytest.raises(VerificationFailed, match="results"):
                await Outcomes(client).outcome(raw, since_height=since)
