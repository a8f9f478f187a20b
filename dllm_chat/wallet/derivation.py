"""From a seed to keys: SLIP-10 for Ed25519, and our paths [format].

See docs/protocol/keys.md and docs/decisions/0003-key-derivation.md. SLIP-10:
https://github.com/satoshilabs/slips/blob/master/slip-0010.md
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from dllm_protocol.errors import UsageRefused

PURPOSE = 44
COIN_TYPE = int.from_bytes(b"DLLM", "big")
"""1145850957: not in SLIP-44's registry; why it is this number stands in the decision record."""
HARDENED = 1 << 31
_MASTER_KEY = b"ed25519 seed"


class BadKeyPath(UsageRefused):
    """An index that a derivation path cannot hold."""

    code = "E_KEY_PATH"


class Role(enum.IntEnum):
    """What a key is for; the fourth element of its path."""

    ACCOUNT = 0
    SESSION = 1
    CHAT = 2
    WORKER = 3


class WorkerKey(enum.IntEnum):
    """The three keys of one worker; their index is ``4 · worker + kind``."""

    OPERATOR = 0
    SERVICE = 1
    SEALING = 2


@dataclass(frozen=True, slots=True)
class KeyPath:
    """``m/44'/COIN'/account'/role'/index'``: five elements, all hardened, as Ed25519 demands."""

    account: int
    role: Role
    index: int = 0

    def __post_init__(self) -> None:
        for name, value in (("account", self.account), ("index", self.index)):
            if not 0 <= value < HARDENED:
                raise BadKeyPath(f"{name} {value} is outside 0..{HARDENED - 1}")

    @property
    def elements(self) -> tuple[int, ...]:
        """Path elements without the hardening bit."""
        return (PURPOSE, COIN_TYPE, self.account, int(self.role), self.index)

    def __str__(self) -> str:
        return "m/" + "/".join(f"{element}'" for element in self.elements)


def account_path(account: int) -> KeyPath:
    """The key that owns an account's money."""
    return KeyPath(account, Role.ACCOUNT)


def session_path(account: int, index: int) -> KeyPath:
    """The hot key that signs one session's vouchers."""
    return KeyPath(account, Role.SESSION, index)


def chat_path(account: int) -> KeyPath:
    """The capped key that opens sessions while the account's key is locked."""
    return KeyPath(account, Role.CHAT)


def worker_path(account: int, worker: int, kind: WorkerKey) -> KeyPath:
    """One of the keys of one of an owner's workers. A rotation takes the next free ``worker`` number."""
    return KeyPath(account, Role.WORKER, 4 * worker + kind)


@dataclass(frozen=True, slots=True)
class Node:
    """A SLIP-10 node: whoever has it can derive everything below it and nothing beside or above."""

    key: bytes = field(repr=False)
    """32 bytes: the Ed25519 seed at this place."""
    chain_code: bytes = field(repr=False)
    """32 bytes."""

    def child(self, element: int) -> Node:
        """The hardened child: ``HMAC-SHA512(chain code, 0x00 ‖ key ‖ element + 2³¹)``, cut in halves.

        Raises:
            BadKeyPath: an element outside 31 bits.
        """
        if not 0 <= element < HARDENED:
            raise BadKeyPath(f"path element {element} is outside 0..{HARDENED - 1}")
        data = b"\x00" + self.key + (element + HARDENED).to_bytes(4, "big")
        digest = hmac.digest(self.chain_code, data, "sha512")
        return Node(digest[:32], digest[32:])

    def descend(self, elements: Sequence[int]) -> Node:
        """The node at the hardened path ``elements`` below this one."""
        node = self
        for element in elements:
            node = node.child(element)
        return node


def master_node(seed: bytes) -> Node:
    """SLIP-10's master: ``HMAC-SHA512("ed25519 seed", seed)``.

    Raises:
        BadKeyPath: a seed of other than 16 to 64 bytes.
    """
    if not 16 <= len(seed) <= 64:
        raise BadKeyPath(f"a seed has 16 to 64 bytes, not {len(seed)}")
    digest = hmac.digest(_MASTER_KEY, seed, "sha512")
    return Node(digest[:32], digest[32:])


def derive(seed: bytes, path: KeyPath) -> bytes:
    """The 32-byte Ed25519 seed at a path, from a seed of 16 to 64 bytes."""
    return master_node(seed).descend(path.elements).key


def session_branch(seed: bytes, account: int) -> Node:
    """The node above an account's session keys: all that the chat key's file needs to derive them."""
    return master_node(seed).descend(session_path(account, 0).elements[:-1])
