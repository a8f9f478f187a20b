"""What people type is one address of one node, and two names of one node are told to be one."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from dllm_chat.network.addresses import is_local, is_loopback_host, place_of, websocket_url
from dllm_protocol.errors import UsageRefused


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("ws://node.example:26657/websocket", "ws://node.example:26657/websocket"),
        ("wss://node.example/websocket", "wss://node.example/websocket"),
        ("http://node.example:26657", "ws://node.example:26657/websocket"),
        ("https://node.example/", "wss://node.example/websocket"),
        ("tcp://10.0.0.7:26657", "ws://10.0.0.7:26657/websocket"),
        ("node.example:26657", "ws://node.example:26657/websocket"),
        ("ws://[::1]:26657", "ws://[::1]:26657/websocket"),
    ],
)
def test_an_address_is_completed(typed: str, url: str) -> None:
    assert websocket_url(typed) == url


@pytest.mark.parametrize(
    "typed", ["", "ftp://a.example", "ws://", "ws://a:70000", "ws://me:secret@a.example", "ws://" + "a" * 300]
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(UsageRefused):
        websocket_url(typed)


def test_all_names_of_this_machine_are_one_place() -> None:
    places = {
        place_of(f"ws://{host}:7/websocket") for host in ("127.0.0.1", "localhost", "[::1]", "127.1.2.3")
    }
    assert places == {("localhost", 7)}
    assert place_of("ws://A.example.:80/x") == place_of("http://a.example")
    assert place_of("wss://a.example") == ("a.example", 443)
    assert not is_loopback_host("a.example")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("192.168.1.5", True),
        ("10.9.8.7", True),
        ("127.0.0.1", True),
        ("169.254.3.4", True),
        ("8.8.8.8", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
    ],
)
def test_invitations_stay_in_the_local_network(address: str, local: bool) -> None:
    assert is_local(IPv4Address(address)) is local
