"""Actions of owners on their validators."""

from __future__ import annotations

from dllm_protocol.encoding import ADDRESS, PUBLIC_KEY, UDLLM, ByteString, Record, record, wire
from dllm_protocol.errors import UsageRefused
from dllm_protocol.hashing import Tag
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged
from dllm_protocol.voucher import CHAIN_ID

_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


class BadKeyProof(UsageRefused):
    """Text that is not a consensus key with its agreement."""

    code = "E_KEY_PROOF"


@record
class KeyOwner(Record):
    """What a consensus key signs before anybody may stake on it, so that nobody takes another's key."""

    chain_id: str = wire(1, CHAIN_ID)
    owner: bytes = wire(2, ADDRESS)
    """The account whose stake the key signs blocks for."""


@record
class Stake(Record):
    """Lock tokens behind a consensus key: the sender becomes its owner, or adds to what it staked."""

    public_key: bytes = wire(1, PUBLIC_KEY)
    """Ed25519 key of the validator that signs blocks."""
    amount_udllm: int = wire(2, UDLLM)
    proof: bytes = wire(3, ByteString(64, 64, optional=True))
    """The key's signature over KeyOwner, tag `consensus-key`; wanted for a key that is new to the chain."""


@record
class Unstake(Record):
    """Start taking stake back; it stays slashable until the unbonding time is over. 0 collects what is due."""

    validator: bytes = wire(1, ADDRESS)
    """Address of the consensus key."""
    amount_udllm: int = wire(2, UDLLM)


def prove_key(signer: Signer, chain_id: str, owner: bytes) -> bytes:
    """The proof that whoever holds a consensus key signs for this owner's stake (64 bytes)."""
    return sign_tagged(signer, Tag.CONSENSUS_KEY, KeyOwner(chain_id, owner).encode())


def is_key_proved(public_key: bytes, chain_id: str, owner: bytes, proof: bytes) -> bool:
    """Whether the consensus key agreed to sign for this owner's stake on this chain."""
    return verify_tagged(public_key, Tag.CONSENSUS_KEY, KeyOwner(chain_id, owner).encode(), proof)


def key_proof_text(signer: Signer, chain_id: str, owner: bytes) -> str:
    """A consensus key and its proof as one word, to be carried from a node to its owner's wallet."""
    return (signer.public_key + prove_key(signer, chain_id, owner)).hex()


def parse_key_proof(text: str) -> tuple[bytes, bytes]:
    """Public key and proof of the word that `key_proof_text` gives. Raises BadKeyProof."""
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES + _SIGNATURE_BYTES:
        raise BadKeyProof(
            f"a key proof has {2 * (_KEY_BYTES + _SIGNATURE_BYTES)} hexadecimal digits, "
            f"{text[:16]!r}… with {len(text)} characters is none",
            hint="copy the word that `dllm-node key --owner ADDRESS` prints, whole",
        )
    return raw[:_KEY_BYTES], raw[_KEY_BYTES:]
