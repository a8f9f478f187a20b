"""What a block, header, commit or validator set is refused for.

    VerificationFailed
    └── InvalidBlock       a consensus object breaks one of its own rules
MalformedBytes             bytes or JSON that are not the one form of a consensus object
    └── MalformedBlock
"""

from __future__ import annotations

from dllm_protocol.errors import MalformedBytes, VerificationFailed


class InvalidBlock(VerificationFailed):
    """A consensus object breaks a rule that needs no other knowledge."""

    code = "E_BLOCK_INVALID"


class MalformedBlock(MalformedBytes):
    """Bytes or JSON that do not spell a consensus object in its one form."""

    code = "E_BLOCK_MALFORMED"


def shown(value: bytes | int | str) -> str:
    """Print one side of a disagreement: bytes as upper hex, nothing as a word."""
    if isinstance(value, bytes):
        return value.hex().upper() or "(empty)"
    return str(value)


def require_equal(what: str, claimed: bytes | int | str, found: bytes | int | str) -> None:
    """Refuse a claim that differs from what was computed.

    Args:
        what: name of the claim, as the first words of the message.
        claimed: the value that somebody states.
        found: the value that we computed or know.

    Raises:
        InvalidBlock: the two differ; the message names both.
    """
    if claimed != found:
        raise InvalidBlock(f"{what}: claimed {shown(claimed)}, found {shown(found)}")
