"""Decoders of `full_node` and of the JSON-RPC that it serves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from dllm_protocol.address import encode_address
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.jsonrpc import params
from dllm_protocol.jsonrpc.errors import RpcError
from dllm_protocol.jsonrpc.query import parse_query
from dllm_protocol.jsonrpc.requests import load_json, request_from
from dllm_protocol.relay import ToRelay
from full_node.consensus.chain_state import ChainState
from full_node.consensus.sign_state import SignState
from full_node.founding import parse_account, parse_validator
from full_node.halting import read_mark
from full_node.home import NodeHome, read_genesis
from full_node.keys import load_key
from full_node.rpc.methods import METHODS
from full_node.settings import read_settings
from full_node.state.page import decode_page, decode_slot
from full_node.state_machine.admission import Decoder as TransactionDecoder
from tests.full_node.relay.driver import Driver
from tests.fuzz.decoder import Decoder, text
from tests.fuzz.protocol import as_json, golden_records
from tests.vectors.record_relay import TO_RELAY

_ADDRESS = encode_address("dllm", b"\x07" * 20)
_VALIDATOR = f"{'07' * 32}:{_ADDRESS}:12.5".encode()
_ACCOUNT = f"{_ADDRESS}=1.5".encode()
_KEY = {
    "address": "0" * 40,
    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": "AA=="},
    "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": "AA=="},
}


@cache
def _folder() -> Path:
    """Where inputs of decoders that read files are put; goes with the process."""
    return Path(_kept.name)


_kept = tempfile.TemporaryDirectory(prefix="dllm-fuzz-")


def through_file(read: Callable[[Path], object], name: str = "input") -> Callable[[bytes], object]:
    """A decoder that is given the path of a private file with the input."""

    def read_bytes(data: bytes) -> object:
        path = _folder() / name
        path.write_bytes(data)
        path.chmod(0o600)
        return read(path)

    return read_bytes


def answered(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """The RPC's own errors become answers: their bodies must be JSON that can be sent."""

    def read_bytes(data: bytes) -> object:
        try:
            return read(data)
        except RpcError as error:
            as_json(error.body())
            raise MalformedBytes(error.message) from error

    return read_bytes


def _call(data: bytes) -> None:
    """A POST's body up to the method's arguments."""
    given = load_json(data)
    for one in given if isinstance(given, list) else [given]:
        request = request_from(one)
        as_json(request.id)
        if (method := METHODS.get(request.method)) is not None:
            params.from_json(method.shape, request.params)


def _uri(written: str) -> None:
    """A GET's path and query string up to the method's arguments."""
    name, _, query = written.partition("?")
    method = METHODS.get(name)
    if method is not None:
        params.from_query(method.shape, dict(parse_qsl(query, keep_blank_values=True)))


def _to_relay(data: bytes) -> None:
    """A relay is told anything in every state: it never fails, and nothing goes to whoever was closed."""
    driver = Driver()
    listener, dialer, answerer = driver.stream()
    for peer in (driver.open(), driver.dialer(), listener, dialer, answerer):
        driver.say(peer, data)
        driver.say(peer, data.decode("utf-8", "replace"))
    ToRelay.decode(data)


def _transaction(data: bytes) -> None:
    TransactionDecoder().decode(data)


def decoders() -> list[Decoder]:
    """Requests, stored bytes and files."""
    transaction = golden_records()["Transaction"][0]
    genesis = golden_records()["Genesis"][0]
    calls: list[Any] = [
        {"jsonrpc": "2.0", "id": 1, "method": "abci_query", "params": {"path": "/store", "data": "6b6579"}},
        {"jsonrpc": "2.0", "id": "a", "method": "broadcast_tx_sync", "params": {"tx": "AAAA"}},
        [{"jsonrpc": "2.0", "id": -1, "method": "commit", "params": ["7"]}],
    ]
    examples = tuple(as_json(one) for one in calls)
    query = text(parse_query)
    uris = (b"abci_query?path=%22/store%22&data=0x6b&height=7&prove=true", b"tx?hash=0xAA&prove=false")
    rpc = [
        Decoder(
            "dllm_protocol.jsonrpc.requests.load_json", "rpc", answered(load_json), examples, is_json=True
        ),
        Decoder(
            "dllm_protocol.jsonrpc.requests.request_from", "rpc", answered(_call), examples, is_json=True
        ),
        Decoder("dllm_protocol.jsonrpc.params.from_json", "rpc", answered(_call), examples, is_json=True),
        Decoder("dllm_protocol.jsonrpc.params.from_query", "rpc", answered(text(_uri)), uris),
        Decoder(
            "dllm_protocol.jsonrpc.query.parse_query",
            "rpc",
            answered(query),
            (b"tm.event='Tx' AND tx.height>=5 AND message.sender='dllm1'",),
        ),
    ]
    typed: list[tuple[str, Callable[[str], object], bytes]] = [
        ("founding.parse_validator", lambda given: parse_validator(given, "dllm"), _VALIDATOR),
        ("founding.parse_account", lambda given: parse_account(given, "dllm"), _ACCOUNT),
    ]
    stored: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        ("state_machine.admission.Decoder.decode", _transaction, (transaction,)),
        ("state.page.decode_slot", decode_slot, (bytes(72), bytes(40), b"")),
        ("state.page.decode_page", decode_page, (b"\x00\x01\x00\x00" + bytes(72), bytes(4))),
        ("relay.core.Relay.received", _to_relay, tuple(ToRelay(one).encode() for one in TO_RELAY)),
        ("home.read_genesis", through_file(read_genesis), (genesis,)),
        (
            "halting.read_mark",
            through_file(lambda path: read_mark(NodeHome(path.parent)), "halted.json"),
            (as_json({"height": 7, "app_version": 1, "app_hash": "AA"}),),
        ),
        (
            "settings.read_settings",
            through_file(lambda path: read_settings(NodeHome(path.parent)), "node.json"),
            (as_json({"version": 1, "engine": "solo", "peers": [], "seeds": []}),),
        ),
        ("keys.load_key", through_file(load_key), (as_json(_KEY),)),
        ("consensus.chain_state.ChainState.decode", ChainState.decode, (as_json({"chain_id": "a"}),)),
        ("consensus.sign_state.SignState.load", through_file(SignState.load), (b"",)),
    ]
    files = ("keys", "home", "consensus", "halting", "settings")
    return [
        *rpc,
        *(Decoder(f"full_node.{name}", "text", text(read), (given,)) for name, read, given in typed),
        *(
            Decoder(f"full_node.{name}", "node", read, made, is_json=name.startswith(files))
            for name, read, made in stored
        ),
    ]
