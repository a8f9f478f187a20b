"""A network's description says which chain it is and who vouches for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.bundle import NetworkBundle, SignedBundle, fingerprint, is_peer_address, sign_bundle
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.genesis import Genesis, GenesisValidator, chain_id_of
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.receipt import BADGE_LOCAL, BADGE_NETWORK
from dllm_protocol.signing import SeedSigner

SIGNER = SeedSigner(b"\x01" * 32)


def make_bundle(prefix: str = "dllm") -> NetworkBundle:
    genesis = Genesis(
        1,
        "test",
        1_700_000_000_000,
        prefix,
        NETWORK_PARAMS,
        (),
        (),
        (GenesisValidator(b"\x02" * 32, b"\x05" * 20, 10),),
        b"\x03" * 32,
    )
    return NetworkBundle(1, genesis, 7, b"\x04" * 32, ("ws://127.0.0.1:1/websocket",), (), (), "")


def test_the_chain_id_follows_from_the_genesis() -> None:
    bundle = make_bundle()
    assert bundle.chain_id == chain_id_of(bundle.genesis)
    other = replace(bundle, genesis=replace(bundle.genesis, nonce=b"\x05" * 32))
    assert other.chain_id != bundle.chain_id


def test_embedded_networks_are_told_by_their_prefix() -> None:
    assert make_bundle("local").badge == BADGE_LOCAL
    assert make_bundle("dllm").badge == BADGE_NETWORK


def test_test_networks_are_told_by_their_prefix() -> None:
    assert [make_bundle(prefix).is_test for prefix in ("local", "tdllm", "dllm", "tdllmx")] == [
        True,
        True,
        False,
        False,
    ]
    assert make_bundle("tdllm").badge == BADGE_NETWORK


def test_the_signature_covers_every_byte() -> None:
    signed = sign_bundle(SIGNER, make_bundle())
    raw = signed.encode()
    assert SignedBundle.decode(raw).signature_fits
    for at in range(0, len(raw), 3):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            found = SignedBundle.decode(changed)
        except MalformedBytes:
            continue
        assert not found.signature_fits, f"byte {at} may change unnoticed"


def test_an_unsigned_bundle_fits_no_signer() -> None:
    assert not SignedBundle(make_bundle(), b"", b"").signature_fits


def test_a_fingerprint_is_six_groups_that_differ_by_key() -> None:
    shown = fingerprint(SIGNER.public_key)
    assert [len(group) for group in shown.split()] == [4, 4, 4, 4, 4, 4]
    assert shown != fingerprint(b"\x09" * 32)


def test_a_bundle_without_a_source_cannot_be_written() -> None:
    with pytest.raises(MalformedBytes):
        replace(make_bundle(), sources=()).encode()


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("0123456789abcdef0123456789abcdef01234567@peer.example:26656", True),
        ("0123456789abcdef0123456789abcdef01234567@[::1]:1", True),
        ("0123456789abcdef0123456789abcdef0123456@peer.example:26656", False),
        ("0123456789abcdef0123456789abcdef01234567@peer.example:0", False),
        ("0123456789abcdef0123456789abcdef01234567@peer.example:65536", False),
        ("tcp://0123456789abcdef0123456789abcdef01234567@peer.example:26656", False),
        ("peer.example:26656", False),
    ],
)
def test_a_peer_address_names_a_node_id_a_host_and_a_port(text: str, fits: bool) -> None:
    assert is_peer_address(text) is fits
