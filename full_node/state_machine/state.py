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

    Records are kept as they are, and become bytes when somebody wants those: checks never do. They are frozen, so
    every overlay may share them.
    """

    __slots__ = ("_below", "_decoded", "_written")

    def __init__(self, below: StateReader) -> None:
        self._below = below
        self._written: dict[bytes, Record | bytes | None] = {}
        self._decoded: dict[bytes, Record] = {}
        """Of bytes that were written here, or that stand in the reader below."""

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, changes included."""
        if key not in self._written:
            return self._below.get(key)
        return _bytes_of(self._written[key])

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value. Raises ValueError for an empty one, which the state tree cannot hold."""
        if not value:
            raise ValueError(f"the value for {key!r} is empty: delete the key instead")
        self._set(key, value)

    def delete(self, key: bytes) -> None:
        """Remove a key; it need not be there."""
        self._set(key, None)

    def read(self, key: bytes, record_type: type[R]) -> R | None:
        """The record under a key, or None."""
        overlay: Overlay = self
        while True:
            record = overlay._decoded.get(key)
            if record is not None:
                return cast(R, record)
            if key in overlay._written:
                found = overlay._written[key]
                if found is None or not isinstance(found, bytes):
                    return cast("R | None", found)
                break
            if not isinstance(overlay._below, Overlay):
                found = overlay._below.get(key)
                if found is None:
                    return None
                break
            overlay = overlay._below
        decoded = record_type.decode(found)
        overlay._decoded[key] = decoded
        return decoded

    def write(self, key: bytes, record: Record) -> None:
        """Set a record, or remove the key where the record encodes to nothing.

        Raises:
            MalformedBytes: a field has left its bounds.
        """
        self._set(key, record if record.check() else None)

    def changes(self) -> Mapping[bytes, bytes | None]:
        """Every key that was written, with its last value; None = removed."""
        return {key: _bytes_of(value) for key, value in self._written.items()}

    @property
    def changed_keys(self) -> int:
        """How many keys were written."""
        return len(self._written)

    @property
    def bytes_written(self) -> int:
        """Bytes of the values that were written as bytes, not as records."""
        return sum(len(value) for value in self._written.values() if isinstance(value, bytes))

    def has_changed(self, key: bytes) -> bool:
        """Whether the key was written."""
        return key in self._written

    def merge(self) -> Overlay:
        """Move the changes into the overlay below, and return that.

        Raises:
            TypeError: below is a reader, which nothing here may write.
        """
        below = self._below
        if not isinstance(below, Overlay):
            raise TypeError("only an overlay takes changes; hand a reader's changes to its engine")
        for key in self._written:
            below._decoded.pop(key, None)
        below._written.update(self._written)
        below._decoded.update(self._decoded)
        self._written, self._decoded = {}, {}
        return below

    def _set(self, key: bytes, value: Record | bytes | None) -> None:
        self._written[key] = value
        self._decoded.pop(key, None)


def _bytes_of(value: Record | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, Record) else value


def read(state: StateReader, key: bytes, record_type: type[R]) -> R | None:
    """The record under a key of any reader, or None."""
    if isinstance(state, Overlay):
        return state.read(key, record_type)
    raw = state.get(key)
    return None if raw is None else record_type.decode(raw)
