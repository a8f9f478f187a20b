"""`dllm-node join` takes a network from a bundle, and only from the publisher that the operator names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle, fingerprint, sign_bundle
from dllm_protocol.genesis import chain_id_of
from dllm_protocol.signing import SeedSigner
from full_node.founding import Founding, found_chain, own_validator
from full_node.home import NodeHome, read_genesis
from full_node.settings import COMETBFT, read_settings
from tests.full_node.processes import dllm_node

PUBLISHER = SeedSigner(b"p" * 32)
SEED = f"{'ab' * 20}@127.0.0.1:26656"
SERVERS = ("--state-sync", "http://127.0.0.1:1", "--state-sync", "http://127.0.0.1:2")


@pytest.fixture
def bundle() -> NetworkBundle:
    validator = own_validator(SeedSigner(b"v" * 32).public_key, "", "local")
    genesis = found_chain(Founding("joined", "local", [validator], [], seats=4))
    return NetworkBundle(
        BUNDLE_VERSION, genesis, 7, b"h" * 32, ("ws://127.0.0.1:1/websocket",), (), (SEED,), ""
    )


@pytest.fixture
def file(tmp_path: Path, bundle: NetworkBundle) -> Path:
    path = tmp_path / "network.bundle"
    path.write_bytes(sign_bundle(PUBLISHER, bundle).encode())
    return path


def join(home: Path, file: Path, *words: str) -> tuple[int, str]:
    done = dllm_node("join", "--home", home, "--bundle", file, *words)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_the_folder_has_genesis_seeds_and_where_to_begin(
    tmp_path: Path, bundle: NetworkBundle, file: Path
) -> None:
    home = tmp_path / "node"
    named = ("--publisher", fingerprint(PUBLISHER.public_key))
    status, said = join(home, file, *named, *SERVERS, "--json")
    assert status == 0, said
    assert json.loads(said)["data"]["chain_id"] == chain_id_of(bundle.genesis)
    place = NodeHome(home)
    assert read_genesis(place.genesis) == bundle.genesis
    settings = read_settings(place)
    assert (settings.engine, settings.seeds) == (COMETBFT, (SEED,))
    assert settings.state_sync is not None
    assert (settings.state_sync.trust_height, settings.state_sync.trust_hash) == (7, b"h" * 32)
    assert settings.state_sync.servers == (SERVERS[1], SERVERS[3])


def test_another_publisher_a_broken_signature_and_nonsense_are_refused(
    tmp_path: Path, bundle: NetworkBundle, file: Path
) -> None:
    home = tmp_path / "node"
    named = ("--publisher", fingerprint(PUBLISHER.public_key))
    for words in ((), ("--publisher", fingerprint(b"x" * 32))):
        status, said = join(home, file, *words)
        assert (status, f"is signed by {named[1]}" in said) == (2, True), said
    signed = sign_bundle(PUBLISHER, bundle)
    file.write_bytes(replace(signed, signature=bytes(63) + b"\x01").encode())
    assert "is not signed by" in join(home, file, *named)[1]
    file.write_bytes(b"nonsense")
    assert "is no bundle" in join(home, file, *named)[1]
    assert "cannot be read" in join(home, tmp_path / "gone", *named)[1]
    assert not (home / "genesis.json").exists()


def test_state_sync_without_a_bundle_needs_a_header(tmp_path: Path, bundle: NetworkBundle) -> None:
    genesis = tmp_path / "genesis"
    genesis.write_bytes(bundle.genesis.encode())
    words = ("join", "--home", tmp_path / "node", "--genesis", genesis, "--seed", SEED, *SERVERS)
    for more in ((), ("--trust-height", "3"), ("--trust-height", "3", "--trust-hash", "zz")):
        done = dllm_node(*words, *more)
        assert (done.returncode, "needs a header that you trust" in done.stderr) == (2, True)
    assert dllm_node(*words, "--trust-height", "3", "--trust-hash", "ab" * 32).returncode == 0
