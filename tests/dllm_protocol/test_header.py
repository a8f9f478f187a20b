"""Headers: Go's hash, strict bytes, rules."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.commit import BlockID, PartSetHeader
from dllm_protocol.header import Header
from dllm_protocol.timestamp import Timestamp
from tests.light_node.signed_chain import SignedChain


@pytest.fixture
def header() -> Header:
    """A sound header with every field set."""
    chain = SignedChain()
    chain.grow(3)
    return replace(chain.blocks[3].header, app_version=5)


@pytest.mark.conformance("cometbft-go-tests")
def test_go_s_header_hash(shared_vectors: Path) -> None:
    vector = json.loads((shared_vectors / "cometbft-go-tests" / "header_hash.json").read_text())
    given = vector["header"]
    parts = given["last_block_id"]["part_set_header"]
    header = Header(
        chain_id=given["chain_id"],
        height=given["height"],
        time=Timestamp.from_rfc3339(given["time"]),
        last_block_id=BlockID(
            bytes.fromhex(given["last_block_id"]["hash"]),
            PartSetHeader(parts["total"], bytes.fromhex(parts["hash"])),
        ),
        **{name: bytes.fromhex(value) for name, value in given.items() if name.endswith("_hash")},
        proposer_address=bytes.fromhex(given["proposer_address"]),
        app_version=given["version"]["app"],
        block_version=given["version"]["block"],
    )
    assert header.hash().hex().upper() == vector["want"]


def test_every_field_changes_the_hash_and_survives_the_bytes(header: Header) -> None:
    hashes = {header.hash()}
    named = [field for field in fields(header) if field.init]
    for field in named:
        value = getattr(header, field.name)
        if isinstance(value, int):
            other: object = value + 1
        elif isinstance(value, str):
            other = value + "x"
        elif isinstance(value, bytes):
            other = bytes(len(value))
        elif isinstance(value, Timestamp):
            other = value.add_ns(1)
        else:
            other = BlockID(bytes(32), PartSetHeader(2, bytes(32)))
        changed = replace(header, **{field.name: other})
        assert Header.decode(changed.encode()) == changed
        hashes.add(changed.hash())
    assert len(hashes) == 1 + len(named)


def test_an_empty_value_is_an_empty_leaf_and_no_validators_no_hash(header: Header) -> None:
    assert replace(header, app_hash=b"").hash() != header.hash()
    assert replace(header, validators_hash=b"").hash() == b""


def test_rules_of_a_header(header: Header) -> None:
    header.validate_basic()
    for changes, words in (
        ({"block_version": 10}, "block version: claimed 10, found 11"),
        ({"chain_id": "x" * 51}, "51 bytes, at most 50"),
        ({"height": 0}, "height is 0"),
        ({"data_hash": b"short"}, "data_hash has 5 bytes"),
        ({"proposer_address": b""}, "0 bytes, not 20"),
        ({"last_block_id": BlockID(b"short")}, "5 bytes"),
    ):
        with pytest.raises(InvalidBlock, match=words):
            replace(header, **changes).validate_basic()
    replace(header, app_hash=b"any length at all").validate_basic()


def test_cut_or_padded_bytes_are_refused(header: Header) -> None:
    encoded = header.encode()
    for length in range(len(encoded)):
        try:
            found = Header.decode(encoded[:length])
        except MalformedBlock:
            continue
        assert found != header
    with pytest.raises(MalformedBlock):
        Header.decode(encoded + b"\x78\x01")
