"""Which holders are asked, where a stranger's address may lead, and what is made of hostile answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dllm_protocol.errors import NetworkUnreachable
from dllm_protocol.holder_book import HolderEntry
from dllm_protocol.records import Provider
from dllm_protocol.seeding_place import SEEDING_PATH, SeedingPlace
from light_node.channel.link import Link
from light_node.channel.server import serve_channels
from local_worker import holder_places
from local_worker.holder_places import (
    HOLDERS_MAX,
    HOLDERS_PER_LAYER,
    HolderPlaces,
    holders_to_ask,
    may_be_asked,
)
from tests.local_worker.doubles import ChainDouble

OWNER = b"\x0a" * 20
NEAR = HolderPlaces(near=True, mix=lambda _: None)


def holder(number: int, first: int, end: int, *, serves: bool = True) -> HolderEntry:
    return HolderEntry(number.to_bytes(20, "big"), OWNER, 100, 4, first, end, 0, int(serves))


def numbers(entries: list[HolderEntry]) -> list[int]:
    return [int.from_bytes(one.provider, "big") for one in entries]


def test_holders_of_the_layers_are_asked_and_those_first_who_serve() -> None:
    entries = [
        holder(1, 0, 2),
        holder(2, 2, 4, serves=False),
        holder(3, 2, 4),
        holder(4, 0, 0, serves=False),
        holder(5, 3, 8),
        holder(6, 4, 8),
    ]
    assert numbers(holders_to_ask(entries, 2, 4)) == [3, 5, 2]
    assert numbers(holders_to_ask(entries, 0, 8)) == [1, 3, 5, 6, 2]
    assert holders_to_ask(entries, 8, 9) == []


def test_a_few_holders_a_layer_are_enough() -> None:
    many = [holder(number, 0, 4) for number in range(100)]
    assert len(holders_to_ask(many, 0, 4)) == HOLDERS_PER_LAYER
    each_its_own = [holder(layer, layer, layer + 1) for layer in range(100)]
    assert len(holders_to_ask(each_its_own, 0, 100)) == HOLDERS_MAX


@pytest.mark.parametrize(
    ("address", "public", "near"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.0.4", False, True),
        ("169.254.169.254", False, True),
        ("fe80::1%eth0", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("::ffff:93.184.216.34", True, True),
        ("100.64.0.1", False, True),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_strangers_lead_nobody_into_this_network(address: str, public: bool, near: bool) -> None:
    assert may_be_asked(address, near=False) is public
    assert may_be_asked(address, near=True) is near


def a_chain(*endpoints: tuple[str, ...]) -> ChainDouble:
    """A chain with a holder of layers 0:4 for each list of endpoints."""
    chain = ChainDouble(OWNER)
    for number, own in enumerate(endpoints, start=1):
        entry = holder(number, 0, 4)
        chain.others.append(entry)
        chain.providers[entry.provider] = Provider(
            OWNER, OWNER, b"\1" * 32, b"\2" * 32, own, "", 0, (), 0, 0, ()
        )
    return chain


@asynccontextmanager
async def a_door(page: Callable[[], bytes | None]) -> AsyncIterator[int]:
    async def nobody(_: Link) -> None:
        raise AssertionError("nobody dials here")

    server = await serve_channels("127.0.0.1", 0, nobody, pages={SEEDING_PATH: page})
    try:
        yield server.port
    finally:
        await server.close()


async def test_a_holder_is_asked_at_its_endpoint_and_says_a_port() -> None:
    said = SeedingPlace(1, 6881).encode()
    async with a_door(lambda: said) as one, a_door(lambda: None) as silent:
        chain = a_chain(
            (f"relay+wss://relay.example:443/{'0' * 64}", f"ws://127.0.0.1:{one}"),
            (f"ws://127.0.0.1:{silent}",),
            (f"ws://localhost:{one}/",),
            ("ws://127.0.0.1:1",),
        )
        assert await NEAR.find(chain, "m", 1, 3) == (("127.0.0.1", 6881),)
        assert await HolderPlaces().find(chain, "m", 1, 3) == (), "loopback, by number and by name"
        assert await NEAR.find(chain, "m", 5, 6) == ()
    assert await NEAR.find(ChainDouble(OWNER), "m", 0, 4) == ()


async def test_a_door_with_pages_answers_nothing_else() -> None:
    async with a_door(lambda: b"here") as port:
        for path, status in ((SEEDING_PATH, b"200"), ("/", b"426"), (SEEDING_PATH + "/x", b"426")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            assert answer.split(b" ")[1] == status, answer
            assert answer.endswith(b"here") is (status == b"200")


@asynccontextmanager
async def a_stranger(answer: bytes, *, asked: list[bytes]) -> AsyncIterator[int]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if answer:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@pytest.mark.parametrize(
    "answer",
    [
        http(b"6881"),
        http(b""),
        http(SeedingPlace(1, 6881).encode() + b"\0"),
        http(SeedingPlace(1, 6881).encode() * 40),
        http(SeedingPlace(1, 6881).encode(), status="404 Not Found"),
        http(b"", status="302 Found", more=f"Location: http://127.0.0.1:1{SEEDING_PATH}\r\n"),
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
    ids=["text", "nothing", "more", "much", "not found", "elsewhere", "no http", "silence"],
)
async def test_what_is_no_place_leads_nowhere(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_places, "ANSWER_S", 2.0)
    asked: list[bytes] = []
    async with a_stranger(answer, asked=asked) as port:
        assert await NEAR.find(a_chain((f"ws://127.0.0.1:{port}/path/",)), "m", 0, 4) == ()
    (request,) = asked
    assert request.startswith(b"GET /path" + SEEDING_PATH.encode() + b" HTTP/1.1\r\n")
    assert b"user-agent" not in request.lower()


async def test_endpoints_that_make_no_sense_are_passed_over() -> None:
    for endpoint in (
        "ws://",
        "ws://user:secret@127.0.0.1:1",
        "ws://[::1",
        "ws://127.0.0.1:0",
        "ws://x:99999",
        "http://x",
    ):
        assert await NEAR.find(a_chain((endpoint,)), "m", 0, 4) == ()


async def test_a_chain_that_does_not_answer_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = a_chain(("ws://127.0.0.1:1",))

    async def lost(_: object) -> None:
        raise NetworkUnreachable("no node")

    monkeypatch.setattr(chain, "provider", lost)
    assert await NEAR.find(chain, "m", 0, 4) == ()
    monkeypatch.setattr(chain, "holder_book", lost)
    assert await NEAR.find(chain, "m", 0, 4) == ()
