"""A relay's address: one name for each relay, and no unprotected line to a stranger unless somebody says so."""

from __future__ import annotations

import pytest

from light_node.relay.errors import BadRelayAddress
from light_node.relay.urls import relay_url


@pytest.mark.parametrize(
    ("typed", "url", "name"),
    [
        ("wss://relay.example", "wss://relay.example", "relay.example:443"),
        ("relay.example", "wss://relay.example", "relay.example:443"),
        ("relay.example:9700", "wss://relay.example:9700", "relay.example:9700"),
        ("WSS://Relay.Example.:443/", "wss://relay.example:443", "relay.example:443"),
        ("https://relay.example/relay", "wss://relay.example/relay", "relay.example:443"),
        ("ws://127.0.0.1:9700", "ws://127.0.0.1:9700", "127.0.0.1:9700"),
        ("http://localhost:9700", "ws://localhost:9700", "localhost:9700"),
        ("ws://[::1]:9700", "ws://[::1]:9700", "[::1]:9700"),
        ("ws://192.168.1.20:9700", "ws://192.168.1.20:9700", "192.168.1.20:9700"),
        ("wss://[2001:DB8:0::7]", "wss://[2001:db8::7]", "[2001:db8::7]:443"),
    ],
)
def test_addresses_as_people_type_them(typed: str, url: str, name: str) -> None:
    found = relay_url(typed)
    assert (found.url, found.name) == (url, name)
    assert relay_url(found.url) == found


@pytest.mark.parametrize(
    "typed",
    [
        "ws://relay.example",
        "ws://8.8.8.8:9700",
        "http://relay.local:1",
        "ws://0.0.0.0:1",
        "ws://[::ffff:8.8.8.8]:1",
    ],
)
def test_a_plain_line_to_a_stranger_needs_a_word(typed: str) -> None:
    with pytest.raises(BadRelayAddress, match="not protected") as refused:
        relay_url(typed)
    assert "--plain-relay" in refused.value.hint
    assert relay_url(typed, plain_allowed=True).url.startswith("ws://")


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ws://",
        "ftp://relay.example",
        "wss://me:word@relay.example",
        "wss://relay.example/?a=b",
        "wss://relay.example/#a",
        "wss://relay.example:0",
        "wss://relay.example:99999",
        "wss://[::1",
        "wss://relay example",
        "wss://r\u00e9lay.example",
        "wss://" + "a" * 400,
        "wss://relay\x1b[2J.example",
    ],
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(BadRelayAddress):
        relay_url(typed, plain_allowed=True)
