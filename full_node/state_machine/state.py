"""State as handlers see it: a reader below, and overlays that collect changes above it.

A record that encodes to nothing (an empty account, an emptied set) is not stored: its absence says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, cast

from dllm_protocol.encoding import Record

R = TypeVar("R", bound=Record)


class StateReader(Protocol):
    """Whatever can look a key up in one version of the state."""

    def get(self, key: bytes) -> bytes | None: ...


class Overlay:
    """Changes over a reader or over another overlay, not yet merged into it.

    Decoded records are kept beside their bytes: they are frozen, so every overlay may share them.
    """

    __slots__ = ("_below", "_records", "_values")

    def __init__(self, below: StateReader) -> None:
        self._below = below
        self._values: dict[bytes, bytes | None] = {}
        self._records: dict[bytes, Record] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, changes included."""
        if key in self._values:
            return self._values[key]
        return self._below.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value. Raises ValueError for an empty one, which the state tree cannot hold."""
        if not value:
            raise ValueError(f"the value for {key!r} is empty: delete the key instead")
        self._values[key] = value
        self._records.pop(key, None)

    def delete(self, key: bytes) -> None:
        """Remove a key; it need not be there."""
        self._values[key] = None
        self._records.pop(key, None)

    def read(self, key: bytes, record_type: type[R]) -> R | None:
        """The record under a key, or None."""
        overlay: Overlay = self
        while True:
            record = overlay._records.get(key)
            if record is not None:
                return cast(R, record)
            if key in overlay._values:
                raw = overlay._values[key]
                break
            if not isinstance(overlay._below, Overlay):
                raw = overlay._below.get(key)
                break
            overlay = overlay._below
        if raw is None:
            return None
        decoded = record_type.decode(raw)
        overlay._records[key] = decoded
        return decoded

    def write(self, key: bytes, record: Record) -> None:
        """Set a record, or remove the key where the record encodes to nothing.

        Raises:
            MalformedBytes: a field has left its bounds.
        """
        raw = record.encode()
        if raw:
            self._values[key] = raw
            self._records[key] = record
        else:
            self.delete(key)

    def changes(self) -> Mapping[bytes, bytes | None]:
        """Every key that was written, with its last value; None = removed."""
        return self._values

    def merge(self) -> None:
        """Move the changes into the overlay below.

        Raises:
            TypeError: below is a reader, which nothing here may write.
        """
        below = self._below
        if not isinstance(below, Overlay):
            raise TypeError("only an overlay takes changes; hand a reader's changes to its engine")
        for key in self._values:
            below._records.pop(key, None)
        below._values.update(self._values)
        below._records.update(self._records)
        self._values, self._records = {}, {}


def read(state: StateReader, key: bytes, record_type: type[R]) -> R | None:
    """The record under a key of any reader, or None."""
    if isinstance(state, Overlay):
        return state.read(key, record_type)
    raw = state.get(key)
    return None if raw is None else record_type.decode(raw)
