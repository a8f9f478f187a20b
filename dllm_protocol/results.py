"""Results of transactions: four hashed fields decide last_results_hash, the rest is commentary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_protocol import merkle
from dllm_protocol.comet_wire import bytes_field, varint_field


@dataclass(frozen=True, slots=True)
class EventAttribute:
    """One named value of an event; `index` says whether nodes make it searchable."""

    key: str
    value: str
    index: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a transaction did; not hashed, so never to be believed without a proof."""

    type: str
    attributes: tuple[EventAttribute, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecTxResult:
    """What came of one transaction in a block."""

    code: int = 0
    """0 means success; anything else is the refusal's number. Hashed."""
    data: bytes = b""
    """Hashed."""
    log: str = ""
    info: str = ""
    gas_wanted: int = 0
    """Hashed."""
    gas_used: int = 0
    """Hashed."""
    events: tuple[Event, ...] = ()
    codespace: str = ""

    def encode_hashed(self) -> bytes:
        """Return ExecTxResult{code=1, data=2, gas_wanted=5, gas_used=6}: the leaf of last_results_hash."""
        return (
            varint_field(1, self.code)
            + bytes_field(2, self.data)
            + varint_field(5, self.gas_wanted)
            + varint_field(6, self.gas_used)
        )


def last_results_hash(results: Sequence[ExecTxResult]) -> bytes:
    """Return the Merkle root over the hashed parts of a block's results; sha256("") when there are none."""
    return merkle.root([one.encode_hashed() for one in results])
