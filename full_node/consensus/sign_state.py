"""What this validator signed last: kept on the disk before any signature leaves it, so that it never signs
two blocks at one height.

The file also holds the block that was signed. If the node dies between signing and committing, it finishes
exactly that block after the restart, with the same signature; a height that may be known to others is never
made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.encoding import SIGNATURE, U64, ByteString, Record, record, wire
from dllm_protocol.errors import MalformedBytes, VerificationFailed
from dllm_protocol.signing import Signer
from full_node.files import write_private

MAX_BLOCK_BYTES = 32 << 20


class DoubleSignRefused(VerificationFailed):
    """Signing this would contradict what was signed before."""

    code = "E_DOUBLE_SIGN"


@record
class SignedVote(Record):
    """The last precommit."""

    height: int = wire(1, U64)
    round: int = wire(2, U64)
    time_ns: int = wire(3, U64)
    """The vote's own time, nanoseconds since 1970."""
    sign_bytes: bytes = wire(4, ByteString(1, 4096))
    signature: bytes = wire(5, SIGNATURE)
    block: bytes = wire(6, ByteString(1, MAX_BLOCK_BYTES))


@dataclass
class SignState:
    """The file's keeper.

    Attributes:
        path: where it is; missing means that nothing was ever signed.
        last: what it says.
    """

    path: Path
    last: SignedVote | None

    @classmethod
    def load(cls, path: Path) -> SignState:
        """Reads the file.

        Raises:
            DoubleSignRefused: it is there but damaged; signing on could contradict what it said.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls(path, None)
        try:
            return cls(path, SignedVote.decode(data))
        except MalformedBytes as error:
            raise DoubleSignRefused(
                f"{path} is damaged ({error.message}), so it is unknown what was signed last",
                hint="restore the file; remove it only if this key signs nowhere else and the node's "
                "database is the newest there is",
            ) from error

    def sign(
        self, signer: Signer, height: int, round_: int, time_ns: int, sign_bytes: bytes, block: bytes
    ) -> SignedVote:
        """Signs a precommit, or gives the same signature again; durable on return.

        Raises:
            DoubleSignRefused: a later or another vote was signed before.
        """
        last = self.last
        if last is not None:
            if (last.height, last.round) > (height, round_):
                raise DoubleSignRefused(
                    f"asked to sign height {height} round {round_}, signed was height {last.height} round {last.round}"
                )
            if (last.height, last.round) == (height, round_):
                if last.sign_bytes != sign_bytes:
                    raise DoubleSignRefused(
                        f"another block or time was signed at height {height} round {round_}"
                    )
                return last
        vote = SignedVote(height, round_, time_ns, sign_bytes, signer.sign(sign_bytes), block)
        write_private(self.path, vote.encode())
        self.last = vote
        return vote
