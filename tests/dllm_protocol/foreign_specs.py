"""ICS-23 specs of foreign trees: the general verifier is judged by other implementations' vectors."""

from __future__ import annotations

from dllm_protocol.ics23 import InnerSpec, ProofInvalid, ProofSpec
from dllm_protocol.ics23_codec import InnerOp, LeafOp


def _zigzag(data: bytes, position: int) -> tuple[int, int]:
    raw = shift = 0
    while True:
        if position >= len(data):
            raise ProofInvalid("IAVL prefix ends inside a number")
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), position


def check_iavl(op: LeafOp | InnerOp, layer: int) -> None:
    """IAVL prefixes: zigzag varints height, size, version; then nothing, or a length byte and maybe a
    child.
    """
    height, position = _zigzag(op.prefix, 0)
    size, position = _zigzag(op.prefix, position)
    version, position = _zigzag(op.prefix, position)
    if min(height, size, version) < 0 or height < layer:
        raise ProofInvalid(f"IAVL numbers {height}, {size}, {version} are impossible at layer {layer}")
    rest = len(op.prefix) - position
    if layer == 0 and (height, size, rest) != (0, 1, 0):
        raise ProofInvalid(f"IAVL leaf has height {height}, size {size}, {rest} bytes after")
    if layer > 0 and rest not in (1, 34):
        raise ProofInvalid(f"IAVL inner step has {rest} bytes after its numbers")


def check_tendermint(op: LeafOp | InnerOp, layer: int) -> None:
    """Tendermint's inner prefix begins with 01 and is exactly that where a right sibling follows."""
    if isinstance(op, InnerOp) and (op.prefix[:1] != b"\x01" or (op.suffix and op.prefix != b"\x01")):
        raise ProofInvalid(f"inner step {layer} has prefix {op.prefix!r}")


_LEAF = LeafOp(hash=1, prehash_key=0, prehash_value=1, length=1, prefix=b"\x00")

IAVL_SPEC = ProofSpec(
    leaf=_LEAF,
    inner=InnerSpec(
        (0, 1), child_size=33, min_prefix_length=4, max_prefix_length=12, empty_child=b"", hash=1
    ),
    extra_check=check_iavl,
)
TENDERMINT_SPEC = ProofSpec(
    leaf=_LEAF,
    inner=InnerSpec((0, 1), child_size=32, min_prefix_length=1, max_prefix_length=1, empty_child=b"", hash=1),
    extra_check=check_tendermint,
)
