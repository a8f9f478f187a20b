"""The model registry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import RegisterModel
from dllm_protocol.model_manifest import (
    PIECE_BLOCK,
    PIECE_EMBEDDING,
    PIECE_FILE,
    PIECE_HEADER,
    PIECE_OUTPUT,
    PIECE_PROBE,
    Manifest,
    Piece,
    manifest_hash,
)
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord, ModelSet
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    LAYERS,
    MODEL,
    PARAMS,
    World,
    address,
    make_manifest,
    refused,
)


@pytest.fixture
def world() -> World:
    return World()


def chunked(manifest: Manifest) -> Manifest:
    """The manifest of the same model in pieces."""
    kinds = [(PIECE_HEADER, 0), (PIECE_EMBEDDING, 0)]
    kinds += [(PIECE_BLOCK, layer) for layer in range(LAYERS)]
    kinds += [(PIECE_OUTPUT, 0)]
    return replace(manifest, pieces=tuple(Piece(kind, index, 10, b"r" * 32) for kind, index in kinds))


@pytest.mark.parametrize("manifest", [make_manifest("a-model"), chunked(make_manifest("a-model"))])
def test_a_model_is_registered_with_a_bond_and_listed(world: World, manifest: Manifest) -> None:
    world.do("alice", RegisterModel(manifest))
    record = world.record(state_keys.model("a-model"), ModelRecord)
    bond = PARAMS.model_bond_udllm
    assert record == ModelRecord(address("alice"), manifest, bond, MODEL_ACTIVE)
    assert world.record(state_keys.MODELS, ModelSet).names == ("a-model", MODEL)
    assert world.balance("alice") == FUNDS_UDLLM - bond - FEE_UDLLM


def test_a_name_is_registered_once(world: World) -> None:
    manifest = replace(make_manifest(), licence="other")
    known = manifest_hash(make_manifest()).hex()[:16]
    refused(world.send("alice", RegisterModel(manifest)), refusals.AlreadyExists, address("erin"), known)


def piece(kind: int = PIECE_FILE, index: int = 0, size_bytes: int = 10) -> Piece:
    return Piece(kind, index, size_bytes, b"r" * 32)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"layers": 0}, "0 layers"),
        ({"context_rows": 0}, "0 rows"),
        ({"chat_template": "jinja"}, "jinja"),
        ({"pieces": (piece(size_bytes=0),)}, "0 bytes"),
        ({"pieces": (piece(), piece())}, "pieces"),
        ({"pieces": (piece(index=1),)}, "pieces"),
        ({"pieces": (piece(PIECE_HEADER), piece(PIECE_EMBEDDING), piece(PIECE_OUTPUT))}, "4 blocks"),
        ({"pieces": tuple(reversed(chunked(make_manifest()).pieces))}, "in this order"),
        ({"pieces": (piece(), piece(PIECE_PROBE)), "version": 2}, "in this order"),
        ({"pieces": (*chunked(make_manifest()).pieces, piece(PIECE_PROBE))}, "is to have 2"),
        ({"pieces": chunked(make_manifest()).pieces, "version": 2}, "is to have 1"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    world: World, change: dict[str, object], word: str
) -> None:
    manifest = replace(make_manifest("new"), **change)  # type: ignore[arg-type]  # fields by name
    refused(world.send("alice", RegisterModel(manifest)), refusals.BadValue, word)


def test_a_model_with_a_probe_is_registered(world: World) -> None:
    pieces = (*chunked(make_manifest()).pieces, piece(PIECE_PROBE))
    world.do("alice", RegisterModel(replace(make_manifest("probed"), version=2, pieces=pieces)))


def test_a_bond_that_the_owner_does_not_have_is_refused(world: World) -> None:
    world.do("alice", *(RegisterModel(make_manifest(f"m{number}")) for number in range(9)))
    refused(world.send("alice", RegisterModel(make_manifest("m9"))), refusals.InsufficientFunds)
