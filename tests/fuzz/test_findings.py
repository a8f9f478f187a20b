"""Inputs on which something once came out that was not declared; each stays refused."""

from __future__ import annotations

import json

import pytest

from dllm_protocol.block_json import header_to_json
from dllm_protocol.errors import MESSAGE_CHARACTERS_MAX, DllmError, MalformedBytes
from dllm_protocol.json_shape import text
from tests.fuzz.decoder import refused
from tests.fuzz.protocol import chain
from tests.fuzz.table import decoders


def _header(**changes: object) -> bytes:
    return json.dumps(header_to_json(chain().blocks[3].header) | changes).encode()


FINDINGS = {
    "half of a surrogate pair in a chain id was an UnicodeEncodeError in the hash": (
        "dllm_protocol.header_json.header_from_json",
        _header(chain_id="\ud800"),
    ),
    "an empty hash that is written out had a second spelling": (
        "dllm_protocol.commit.BlockID.decode",
        bytes.fromhex("0a00120408011200"),
    ),
    "a first word nested a thousand deep was a RecursionError in the service": (
        "local_worker.engine.messages.read_ready",
        b'{"architecture":' * 100_000,
    ),
    "a passphrase that is not UTF-8 was a UnicodeDecodeError": (
        "dllm_chat.wallet.keystore._unpack",
        b"\x10" + bytes(32) + b"\x00\x01\xff" + bytes(255),
    ),
    "an error code of 70,000 letters was a message of 70,000 letters": (
        "light_node.rpc_connection._refusal",
        json.dumps({"code": "A" * 70_000, "message": "\ud800"}).encode(),
    ),
    "a key file nested a thousand deep was a RecursionError": (
        "full_node.keys.load_key",
        b"[" * 100_000,
    ),
    "an address of a megabyte was summed up before it was refused": (
        "dllm_protocol.address.decode_address",
        b"dllm1" + b"q" * (1 << 20),
    ),
}


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_was_found_stays_refused(finding: str) -> None:
    name, data = FINDINGS[finding]
    decoder = next(one for one in decoders() if one.name == name)
    assert refused(decoder, data) is not None


def test_a_message_is_bounded_and_can_be_written() -> None:
    error = DllmError("x" * 100_000, hint="\ud800")
    assert len(error.message) == MESSAGE_CHARACTERS_MAX == len(str(error))
    assert error.hint.encode() == b"\\ud800"


def test_text_with_half_of_a_surrogate_pair_is_refused() -> None:
    assert text("name", "für 🙂") == "für 🙂"
    with pytest.raises(MalformedBytes, match="surrogate"):
        text("name", "a\udfff")
