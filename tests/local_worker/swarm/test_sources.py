"""How sources and rates are named, and what is refused before anything begins."""

from __future__ import annotations

import pytest

from dllm_protocol.errors import UsageRefused
from local_worker.swarm.sources import (
    PEERS_MAX,
    Sources,
    numeric_place,
    place_from,
    rate_from,
    resolved,
    sources_from,
    web_seed_from,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("2M", 2_000_000),
        ("500k", 500_000),
        ("16384", 16_384),
        ("1G", 1_000_000_000),
        ("64K", 64_000),
    ],
)
def test_rates_as_they_are_typed(text: str, rate: int) -> None:
    assert rate_from(text) == rate


@pytest.mark.parametrize("text", ["", "-1", "1", "16383", "3G", "2.5M", "2MB", "١M", "99999999999999"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UsageRefused, match="is no rate"):
        rate_from(text)


def test_places_as_they_are_typed() -> None:
    assert place_from("192.0.2.7:6881") == ("192.0.2.7", 6881)
    assert place_from("[2001:db8::1]:1") == ("2001:db8::1", 1)
    assert place_from("127.0.0.1:0", lowest_port=0) == ("127.0.0.1", 0)
    assert resolved("127.0.0.1", 5) == [("127.0.0.1", 5)]
    assert numeric_place("2001:db8::1", 5) == "[2001:db8::1]:5"
    assert numeric_place("192.0.2.7", 5) == "192.0.2.7:5"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":1",
        "host:",
        "host:0",
        "host:65536",
        "host:1x",
        "host:-1",
        "ho st:1",
        "a\x1b[2J:1",
        "a/b:1",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageRefused) as refused:
        place_from(text)
    assert "\x1b" not in refused.value.message


def test_a_host_that_nobody_knows() -> None:
    with pytest.raises(UsageRefused, match="nobody knows the host"):
        resolved("no-such-host.invalid", 1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://host/big.package", "https://host/big.package/"),
        ("http://127.0.0.1:8000/p///", "http://127.0.0.1:8000/p/"),
        ("http://[::1]:8000/p", "http://[::1]:8000/p/"),
    ],
)
def test_web_seeds_as_they_are_typed(text: str, address: str) -> None:
    assert web_seed_from(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "host/p",
            "ftp://host/p",
            "file:///etc",
            "http://",
            "http:///p",
            "http://host:0/p",
            "http://host:99999/p",
        ),
        *("http://host/p?x=1", "http://host/p#x", "http://ho st/p", "http://host/\x1b[2J", "http://[::1/p"),
        "http://host/" + "x" * 1024,
    ],
)
def test_what_is_no_web_seed(text: str) -> None:
    with pytest.raises(UsageRefused) as refused:
        web_seed_from(text)
    assert "\x1b" not in refused.value.message


def test_a_password_in_an_address_is_not_told_on() -> None:
    with pytest.raises(UsageRefused) as refused:
        web_seed_from("https://me:geheim@host/p")
    assert "geheim" not in refused.value.message + refused.value.hint


def test_sources_are_few_named_once_and_at_least_one() -> None:
    assert sources_from(["127.0.0.1:5", "127.0.0.1:5"], ["http://h/p", "http://h/p/"]) == Sources(
        (("127.0.0.1", 5),), ("http://h/p/",)
    )
    with pytest.raises(UsageRefused, match="no source is named"):
        sources_from([], [])
    with pytest.raises(UsageRefused, match=f"{PEERS_MAX + 1} peers are named, at most {PEERS_MAX}"):
        sources_from([f"127.0.0.1:{port}" for port in range(1, PEERS_MAX + 2)], [])
    with pytest.raises(UsageRefused, match="17 web seeds"):
        sources_from([], [f"http://h{number}/p" for number in range(17)])
