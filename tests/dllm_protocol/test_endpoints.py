"""Where a provider answers: one spelling for each place at a relay, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from dllm_protocol.actions.providers import ENDPOINT
from dllm_protocol.endpoints import (
    ENDPOINT_CHARACTERS_MAX,
    BadEndpoint,
    DirectEndpoint,
    direct_first,
    read_endpoint,
    write_relay_endpoint,
)
from tests.vectors.record_relay import ADDRESS, ENDPOINTS, VECTORS

RECORDED = json.loads(VECTORS.read_text("utf-8"))["endpoints"]
HEX = ADDRESS.hex()


@pytest.mark.conformance("own-golden-vectors")
def test_recorded_endpoints_are_read_as_they_were_written() -> None:
    for recorded, endpoint in zip(RECORDED, ENDPOINTS, strict=True):
        assert read_endpoint(recorded["endpoint"]) == endpoint
        assert write_relay_endpoint(endpoint.url, endpoint.relay, endpoint.address) == recorded["endpoint"]


def test_a_port_that_the_relay_s_address_leaves_out_is_written() -> None:
    written = write_relay_endpoint("wss://relay.example/a/relay", "relay.example:443", ADDRESS)
    assert written == RECORDED[1]["endpoint"]


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "wss://worker.example/path?x=1"])
def test_a_websocket_of_its_own_is_left_to_whoever_dials_it(url: str) -> None:
    assert read_endpoint(url) == DirectEndpoint(url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relay://relay.example/1",
        f"relay+https://relay.example:443/{HEX}",
        f"relay+wss://relay.example/{HEX}",
        f"relay+wss://Relay.example:443/{HEX}",
        f"relay+wss://relay.example.:443/{HEX}",
        f"relay+wss://relay.example:0443/{HEX}",
        f"relay+wss://relay.example:0/{HEX}",
        f"relay+wss://relay.example:65536/{HEX}",
        f"relay+wss://me@relay.example:443/{HEX}",
        f"relay+wss://relay.example:443/{HEX.upper()}",
        f"relay+wss://relay.example:443/{HEX}0",
        f"relay+wss://relay.example:443/{HEX[:-1]}",
        f"relay+wss://relay.example:443/{HEX}/",
        f"relay+wss://relay.example:443//{HEX}",
        f"relay+wss://relay.example:443/../{HEX}",
        f"relay+wss://relay.example:443/a?b/{HEX}",
        f"relay+wss://relay.example:443/{HEX}#a",
        f"relay+wss://[0:0::1]:443/{HEX}",
        f"relay+wss://[::1%25lo]:443/{HEX}",
        f"relay+wss://[127.0.0.1]:443/{HEX}",
        f"relay+wss://::1:443/{HEX}",
        f"relay+wss://relay\x1b[2J.example:443/{HEX}",
        f"relay+wss://r\u00e9lay.example:443/{HEX}",
        f"relay+wss://relay.example:\u0664/{HEX}",
        f" relay+wss://relay.example:443/{HEX}",
        f"relay+wss://relay.example:443/{HEX}\n",
        f"relay+wss://{'a' * 130}:443/{HEX}",
        "ws://" + "a" * ENDPOINT_CHARACTERS_MAX,
    ],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(BadEndpoint):
        read_endpoint(text)


def test_a_relay_that_no_record_could_name_is_refused_before_it_is_announced() -> None:
    for path in ("/a b", "/a/", "/" + "a" * ENDPOINT_CHARACTERS_MAX):
        with pytest.raises(BadEndpoint):
            write_relay_endpoint(f"wss://relay.example{path}", "relay.example:443", ADDRESS)


def test_an_endpoint_fits_a_provider_s_record() -> None:
    assert ENDPOINT.maximum == ENDPOINT_CHARACTERS_MAX


def test_what_needs_no_relay_comes_first_and_else_the_order_stays() -> None:
    first, second = (one["endpoint"] for one in RECORDED[:2])
    assert direct_first((first, "ws://a", second, "wss://b")) == ("ws://a", "wss://b", first, second)
