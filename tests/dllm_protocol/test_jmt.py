"""The tree's hashing against penumbra's vectors and its own definition."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from dllm_protocol import jmt


@pytest.mark.conformance("jmt-roots")
@pytest.mark.parametrize("number", range(3))
def test_roots_of_the_other_implementation(shared_vectors: Path, number: int) -> None:
    table = json.loads((shared_vectors / "jmt" / "sha2_256_vectors.json").read_text())
    assert len(table["vectors"]) == 3
    vector = table["vectors"][number]
    pairs = {bytes.fromhex(item["key"]): bytes.fromhex(item["value"]) for item in vector["data"]}
    assert jmt.root_of(pairs).hex() == vector["expected_root"]


def test_known_roots() -> None:
    assert jmt.root_of({}) == jmt.PLACEHOLDER
    assert (
        jmt.root_of({b"hello": b"world"}).hex()
        == "6b97115f56e533f2fd443f7e76e4d1ff94d34e6b2e233f2dbdf5cfd1ec39a30c"
    )
    both = {b"hello": b"world", b"goodbye": b"world"}
    assert jmt.root_of(both).hex() == "e1e1e220d4b4a9611a9a09dbcee964b4a6c3a40f6f4dee265ad45cf64568790b"


def test_the_root_does_not_depend_on_the_order() -> None:
    pairs = [(f"k{n}".encode(), f"v{n}".encode()) for n in range(40)]
    assert jmt.root_of(dict(pairs)) == jmt.root_of(dict(reversed(pairs)))


def test_bits_are_read_most_significant_first() -> None:
    position = bytes([0b10100000, 1]) + bytes(30)
    assert [jmt.bit_at(position, depth) for depth in (0, 1, 2, 3, 15)] == [1, 0, 1, 0, 1]
    assert jmt.key_position(b"k") == sha256(b"k").digest()


def test_empty_keys_and_values_are_refused() -> None:
    for bad in ({b"": b"v"}, {b"k": b""}):
        with pytest.raises(ValueError, match="never empty"):
            jmt.root_of(bad)
