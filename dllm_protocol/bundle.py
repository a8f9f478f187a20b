"""All that it takes to join a network, in one signed file [format].

A bundle names the chain (its whole genesis, so that the chain id can be recomputed), a trust root, and where to
ask. Its signer is pinned in the package or confirmed by fingerprint; an embedded network's bundle is unsigned and
never leaves its home.
"""

from __future__ import annotations

import re

from dllm_protocol.encoding import (
    HASH,
    U64,
    ByteString,
    FormatVersion,
    ListOf,
    Nested,
    Record,
    Text,
    record,
    wire,
)
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.receipt import BADGE_LOCAL, BADGE_NETWORK
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged

BUNDLE_VERSION = 1
LOCAL_PREFIX = "local"
"""Address prefix of embedded networks; their money is play money."""
TEST_PREFIX = "tdllm"
"""Address prefix of test networks: their tokens are given away by faucets, and are worth nothing."""
FINGERPRINT_DIGITS = 24
_URL = Text(300, minimum=1)
_PEER = Text(300, minimum=1)
_PEER_FORM = re.compile(r"[0-9a-f]{40}@[^@\s/]{1,255}:[0-9]{1,5}")


@record
class NetworkBundle(Record):
    """What is signed."""

    version: int = wire(1, FormatVersion(BUNDLE_VERSION))
    """1."""
    genesis: Genesis = wire(2, Nested(Genesis))
    """The whole genesis; the chain id follows from it."""
    trust_height: int = wire(3, U64)
    """Height of the trust root."""
    trust_hash: bytes = wire(4, HASH)
    """Hash of the header at ``trust_height``."""
    sources: tuple[str, ...] = wire(5, ListOf(_URL, 32, minimum=1))
    """JSON-RPC websockets of full nodes, ``ws://host:port/websocket``."""
    witnesses: tuple[str, ...] = wire(6, ListOf(_URL, 32))
    """The same, of other operators: what sources say is compared with them."""
    seeds: tuple[str, ...] = wire(7, ListOf(_PEER, 32))
    """CometBFT P2P addresses ``id@host:port`` for those who run a node; may be empty."""
    faucet: str = wire(8, Text(300))
    """Where a test network gives tokens away, ``http://host:port``; empty where it does not."""

    @property
    def chain_id(self) -> str:
        """The chain that the genesis makes."""
        return chain_id_of(self.genesis)

    @property
    def badge(self) -> int:
        """BADGE_LOCAL for embedded networks, BADGE_NETWORK for all others."""
        return BADGE_LOCAL if self.genesis.address_prefix == LOCAL_PREFIX else BADGE_NETWORK

    @property
    def is_test(self) -> bool:
        """Whether its tokens are worth nothing, by the prefix of its addresses."""
        return is_test_network(self.genesis)


@record
class SignedBundle(Record):
    """A bundle with its signer's key and signature; both are zeros where it is unsigned."""

    bundle: NetworkBundle = wire(1, Nested(NetworkBundle))
    """What the network is and where."""
    signer: bytes = wire(2, ByteString(32, 32, optional=True))
    """The publisher's public key; none where the bundle is unsigned."""
    signature: bytes = wire(3, ByteString(64, 64, optional=True))
    """Over the bundle's bytes under tag `network-bundle`."""

    @property
    def signature_fits(self) -> bool:
        """Whether the named signer signed exactly this bundle."""
        return verify_tagged(self.signer, Tag.BUNDLE, self.bundle.encode(), self.signature)


def sign_bundle(signer: Signer, bundle: NetworkBundle) -> SignedBundle:
    """Sign a network's description."""
    return SignedBundle(bundle, signer.public_key, sign_tagged(signer, Tag.BUNDLE, bundle.encode()))


def fingerprint(signer: bytes) -> str:
    """What people compare of a signer's key: six groups of four hex digits.

    96 bits, because whoever makes a key that shows the same can publish in the signer's name; 64 can be searched.
    """
    digest = tagged_hash(Tag.BUNDLE, signer).hex()[:FINGERPRINT_DIGITS]
    return " ".join(digest[i : i + 4] for i in range(0, FINGERPRINT_DIGITS, 4))


def is_test_network(genesis: Genesis) -> bool:
    """Whether a chain's tokens are worth nothing, by the prefix of its addresses."""
    return genesis.address_prefix in (LOCAL_PREFIX, TEST_PREFIX)


def is_peer_address(text: str) -> bool:
    """Whether a text has the form of a CometBFT P2P address: 40 hex digits of the node's id, host and port."""
    return _PEER_FORM.fullmatch(text) is not None and 0 < int(text.rpartition(":")[2]) < 1 << 16
