"""The faucet's address: who is let in, what is taken, and that every answer is JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dllm_protocol.address import encode_address
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut
from full_node.faucet.errors import FaucetBusy
from full_node.faucet.grants import Grants, Limits
from full_node.faucet.server import MAX_BODY_BYTES, FaucetServer, Network
from full_node.rpc.guard import LOOPBACK_NAMES, Door
from light_node.sending import OutcomeUnknown, Sent

PREFIX = "tdllm"
OWN, RECIPIENT = b"\x0f" * 20, b"\x01" * 20
ADDRESS = encode_address(PREFIX, RECIPIENT)
LIMITS = Limits(window_s=3600, per_address=1, per_client=3, in_total=5)


class Purse:
    """Stands in for `Payer`: pays without a chain, or fails as told."""

    amount_udllm = 7
    address = OWN

    def __init__(self) -> None:
        self.paid: list[bytes] = []
        self.failure: DllmError | None = None

    async def give(self, recipient: bytes) -> Sent:
        if self.failure is not None:
            raise self.failure
        self.paid.append(recipient)
        return Sent(b"\xab" * 32, 12, 1, b"")

    async def balance_udllm(self) -> int:
        return 1_000


@pytest.fixture
def purse() -> Purse:
    return Purse()


@pytest.fixture
async def url(tmp_path: Path, purse: Purse) -> AsyncIterator[str]:
    grants = Grants(tmp_path / "grants.db", LIMITS, lambda: 1_000)
    door = Door("127.0.0.1", 0, "", LOOPBACK_NAMES)
    server = FaucetServer(Network("devnet-1", PREFIX), purse, grants, door)  # type: ignore[arg-type]  # its shape
    address = await server.start()
    yield f"http://{address}/"
    await server.stop()
    grants.close()


async def ask(url: str, *, data: bytes | None = None, **options: Any) -> tuple[int, dict[str, Any], Any]:
    body = json.dumps({"address": ADDRESS}).encode() if data is None else data
    headers = {"Content-Type": "application/json"} | options.pop("headers", {})
    async with (
        aiohttp.ClientSession() as client,
        client.post(url, data=body, headers=headers, **options) as answer,
    ):
        assert answer.content_type == "application/json"
        return answer.status, await answer.json(), answer.headers


async def test_an_address_gets_its_tokens_once(url: str, purse: Purse) -> None:
    status, told, _ = await ask(url)
    assert status == 200
    assert told["data"] == {
        "chain_id": "devnet-1",
        "address": ADDRESS,
        "amount_udllm": 7,
        "tx_hash": "AB" * 32,
        "height": 12,
    }
    status, told, headers = await ask(url)
    assert (status, told["error"]["code"]) == (429, "E_FAUCET_LIMIT")
    assert headers["Retry-After"] == "3600"
    assert purse.paid == [RECIPIENT]


async def test_it_says_what_it_gives(url: str) -> None:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        told = await answer.json()
    assert told["data"]["from"] == encode_address(PREFIX, OWN)
    assert (told["data"]["amount_udllm"], told["data"]["grants_left"]) == (7, 5)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[" * 2_000, 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"address": 5}', 400),
        (json.dumps({"address": ADDRESS, "amount": 9}).encode(), 400),
        (json.dumps({"address": encode_address("dllm", RECIPIENT)}).encode(), 400),
        (json.dumps({"address": encode_address(PREFIX, OWN)}).encode(), 400),
        (b'{"address": "' + b"a" * MAX_BODY_BYTES + b'"}', 413),
    ],
)
async def test_what_is_no_request_is_refused_in_json_and_counts_for_nothing(
    url: str, purse: Purse, data: bytes, status: int
) -> None:
    found, told, _ = await ask(url, data=data)
    assert (found, told["ok"]) == (status, False)
    assert purse.paid == []
    assert (await ask(url))[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 400),
    ],
)
async def test_a_page_in_a_browser_gets_nothing(
    url: str, purse: Purse, headers: dict[str, str], status: int
) -> None:
    found, told, _ = await ask(url, headers=headers)
    assert (found, told["ok"]) == (status, False)
    assert purse.paid == []


async def test_unknown_paths_and_methods_answer_in_json(url: str) -> None:
    assert (await ask(url + "more"))[0] == 404
    async with aiohttp.ClientSession() as client, client.put(url) as answer:
        assert (answer.status, (await answer.json())["ok"]) == (405, False)


@pytest.mark.parametrize("failure", [FaucetBusy("many wait"), NetworkUnreachable("no node answers")])
async def test_a_grant_that_was_not_paid_for_certain_is_taken_back(
    url: str, purse: Purse, failure: DllmError
) -> None:
    purse.failure = failure
    status, told, _ = await ask(url)
    assert (status, told["error"]["message"]) == (503, failure.message)
    purse.failure = None
    assert (await ask(url))[0] == 200


@pytest.mark.parametrize("failure", [OutcomeUnknown("it may still come"), TimedOut("too late")])
async def test_a_grant_that_may_have_been_paid_counts(url: str, purse: Purse, failure: DllmError) -> None:
    purse.failure = failure
    assert (await ask(url))[0] == 503
    purse.failure = None
    assert (await ask(url))[0] == 429


async def test_many_at_once_get_no_more_than_the_limit(url: str, purse: Purse) -> None:
    bodies = [
        json.dumps({"address": encode_address(PREFIX, bytes([n]) * 20)}).encode() for n in range(20, 30)
    ]
    answers = await asyncio.gather(*(ask(url, data=body) for body in bodies))
    assert sorted(status for status, *_ in answers) == [200] * LIMITS.per_client + [429] * 7
    assert len(purse.paid) == LIMITS.per_client
