"""Joining: a bundle is kept only if its signer is the one whom the person confirmed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.paths import Paths, find_paths
from dllm_chat.session.networks import BundleRefused, join_network, joined_network, leave_network
from dllm_protocol.bundle import SignedBundle, sign_bundle
from dllm_protocol.errors import NotFound
from dllm_protocol.signing import SeedSigner
from tests.dllm_protocol.test_bundle import SIGNER, make_bundle


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find_paths(tmp_path)


def test_nothing_is_joined_at_first(paths: Paths) -> None:
    assert joined_network(paths) is None
    with pytest.raises(NotFound):
        leave_network(paths)


def test_a_joined_network_stays_until_it_is_left(paths: Paths) -> None:
    signed = sign_bundle(SIGNER, make_bundle())
    join_network(paths, signed.encode(), confirmed_signer=SIGNER.public_key)
    assert joined_network(paths) == signed
    leave_network(paths)
    assert joined_network(paths) is None


def test_another_signer_than_the_confirmed_one_is_refused_with_both_keys(paths: Paths) -> None:
    other = SeedSigner(b"\x42" * 32)
    raw = sign_bundle(other, make_bundle()).encode()
    with pytest.raises(BundleRefused) as caught:
        join_network(paths, raw, confirmed_signer=SIGNER.public_key)
    assert SIGNER.public_key.hex() in caught.value.message
    assert other.public_key.hex() in caught.value.message
    assert joined_network(paths) is None


@pytest.mark.parametrize(
    "signed", [SignedBundle(make_bundle(), b"", b""), SignedBundle(make_bundle(), b"\1" * 32, b"\2" * 64)]
)
def test_an_unsigned_or_wrongly_signed_bundle_is_refused(paths: Paths, signed: SignedBundle) -> None:
    with pytest.raises(BundleRefused, match="signature"):
        join_network(paths, signed.encode(), confirmed_signer=signed.signer)


def test_a_changed_file_is_noticed(paths: Paths) -> None:
    signed = sign_bundle(SIGNER, make_bundle())
    join_network(paths, signed.encode(), confirmed_signer=SIGNER.public_key)
    file = paths.networks / signed.bundle.chain_id / "bundle"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleRefused):
        joined_network(paths)


def test_a_newer_bundle_of_the_same_chain_replaces_the_older(paths: Paths) -> None:
    join_network(paths, sign_bundle(SIGNER, make_bundle()).encode(), confirmed_signer=SIGNER.public_key)
    newer = sign_bundle(SIGNER, replace(make_bundle(), trust_height=99, trust_hash=b"\x77" * 32))
    join_network(paths, newer.encode(), confirmed_signer=SIGNER.public_key)
    assert joined_network(paths) == newer
