"""Reads a GGUF head out of a stream, strictly: a model file is hostile until proven.

Nothing is allocated that is not there: each length is checked against what is left of the file and against a bound
before a byte of it is read. What llama.cpp would refuse is refused here by name, before llama.cpp sees the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Final

from dllm_protocol.gguf.errors import ModelFileDamaged, ModelFileTruncated, NotAModelFile
from dllm_protocol.gguf.head import ALIGNMENT, MAGIC, Head, Tensor, Value, padded
from dllm_protocol.gguf.kinds import ARRAY, BOOL, STRING, TENSOR_KINDS, UINT32, VALUE_BYTES

Read = Callable[[int], bytes]
"""Gives the next bytes of a stream, at most as many as asked; none at its end."""

VERSIONS: Final = (2, 3)
MAX_HEAD_BYTES: Final = 64 << 20
"""A vocabulary of 262,144 tokens with its merges takes some 17 MB."""
MAX_KEYS: Final = 4096
MAX_KEY_BYTES: Final = 256
MAX_STRING_BYTES: Final = 16 << 20
MAX_ELEMENTS: Final = 4 << 20
MAX_TENSORS: Final = 1 << 16
MAX_TENSOR_NAME_BYTES: Final = 63
"""llama.cpp's own bound."""
MAX_DIMENSIONS: Final = 4
MAX_TENSOR_ELEMENTS: Final = 1 << 46
MAX_ALIGNMENT: Final = 1 << 16
_CHUNK_BYTES: Final = 1 << 16
_ALIGNMENT_KEY: Final = "general.alignment"


class _Cursor:
    """Takes a stream apart; never reads beyond the size that the file has, nor beyond the longest head."""

    def __init__(self, read: Read, size_bytes: int) -> None:
        self._read = read
        self._unread = min(size_bytes, MAX_HEAD_BYTES)
        self._is_cut = size_bytes > MAX_HEAD_BYTES
        self._buffer = b""
        self._at = 0
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes that can still be taken."""
        return self._unread + len(self._buffer) - self._at

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes."""
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count, what)
            end = count
        found = self._buffer[self._at : end]
        self._at = end
        self.position += count
        return found

    def _fill(self, count: int, what: str) -> None:
        if count > self.left:
            if self._is_cut:
                raise ModelFileDamaged(f"{what} lies beyond the first {MAX_HEAD_BYTES} bytes")
            raise ModelFileTruncated(f"the file ends in {what}, {count - self.left} bytes too early")
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < count:
            data = self._read(min(max(count - have, _CHUNK_BYTES), self._unread))
            if not data:
                raise ModelFileTruncated(f"the file ends in {what}, {count - have} bytes too early")
            self._unread -= len(data)
            have += len(data)
            parts.append(data)
        self._buffer, self._at = b"".join(parts), 0

    def u32(self, what: str) -> int:
        """A 32-bit number."""
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        """A 64-bit number."""
        return int.from_bytes(self.take(8, what), "little")

    def name(self, what: str, most: int) -> str:
        """A short ASCII string without blanks and control characters."""
        length = self.u64(what)
        if not 1 <= length <= most:
            raise ModelFileDamaged(f"{what} has {length} bytes, 1 to {most} are allowed")
        raw = self.take(length, what)
        if any(not 33 <= byte < 127 for byte in raw):
            raise ModelFileDamaged(f"{what} is {raw[:24]!r}, which is not plain ASCII")
        return raw.decode("ascii")


def read_head(read: Read, size_bytes: int) -> Head:
    """The head at the beginning of a stream.

    Args:
        read: the stream; read up to the end of the head, or a little beyond.
        size_bytes: of the whole file, which the tensors must fit.

    Raises:
        NotAModelFile, ModelFileTruncated, ModelFileDamaged: saying what and where.
    """
    cursor = _Cursor(read, size_bytes)
    if cursor.left < 24:
        raise NotAModelFile(f"a file of {size_bytes} bytes is no GGUF file")
    magic, version = cursor.take(4, "its first bytes"), cursor.u32("its version")
    if magic != MAGIC:
        raise NotAModelFile(f"the file begins with {magic!r}, a GGUF file with {MAGIC!r}")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        why = ", written for big-endian machines" if swapped else ""
        raise NotAModelFile(f"GGUF version {version}{why}; versions 2 and 3 are read")
    tensor_count, key_count = cursor.u64("the number of tensors"), cursor.u64("the number of keys")
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise ModelFileDamaged(
            f"{tensor_count} tensors and {key_count} keys, at most {MAX_TENSORS} and {MAX_KEYS} are read"
        )
    metadata: dict[str, Value] = {}
    for _ in range(key_count):
        key = cursor.name("a key's name", MAX_KEY_BYTES)
        if key in metadata:
            raise ModelFileDamaged(f"key {key} stands twice")
        metadata[key] = _value(cursor, key)
    alignment = _alignment(metadata)
    tensors = _tensors(cursor, tensor_count, alignment)
    data_start = padded(cursor.position, alignment) if tensors else cursor.position
    last = tensors[-1] if tensors else None
    needed = data_start + (last.offset + last.size_bytes if last else 0)
    if needed > size_bytes:
        raise ModelFileTruncated(f"the tensors end at byte {needed}, the file at byte {size_bytes}")
    return Head(metadata, tensors, data_start, alignment)


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get(_ALIGNMENT_KEY)
    if value is None:
        return ALIGNMENT
    number = value.integer(_ALIGNMENT_KEY) if value.kind == UINT32 else 0
    if not 1 <= number <= MAX_ALIGNMENT or number & (number - 1):
        raise ModelFileDamaged(f"{_ALIGNMENT_KEY} is {number}, not a power of two up to {MAX_ALIGNMENT}")
    return number


def _value(cursor: _Cursor, key: str) -> Value:
    kind = cursor.u32(key)
    if kind == STRING:
        return Value(kind, _string(cursor, key))
    if kind in VALUE_BYTES:
        raw = cursor.take(VALUE_BYTES[kind], key)
        if kind == BOOL and raw[0] > 1:
            raise ModelFileDamaged(f"{key} is a truth value of {raw[0]}")
        return Value(kind, raw)
    if kind != ARRAY:
        raise ModelFileDamaged(f"{key} has a value of kind {kind}, which GGUF does not have")
    element, count = cursor.u32(key), cursor.u64(key)
    least = 8 if element == STRING else VALUE_BYTES.get(element, 0)
    if not least:
        raise ModelFileDamaged(f"{key} is an array of kind {element}, which no reader takes")
    if count > MAX_ELEMENTS:
        raise ModelFileDamaged(f"{key} has {count} elements, at most {MAX_ELEMENTS} are read")
    if count * least > cursor.left:
        raise ModelFileTruncated(f"{key} has {count} elements, the file has no room for them")
    head = struct.pack("<IQ", element, count)
    if element != STRING:
        raw = cursor.take(count * least, key)
        if element == BOOL and raw.translate(None, b"\x00\x01"):
            raise ModelFileDamaged(f"{key} has truth values other than 0 and 1")
        return Value(ARRAY, head + raw)
    # One growing buffer: a vocabulary has hundreds of thousands of strings.
    grown = bytearray(head)
    for _ in range(count):
        grown += _string(cursor, key)
    return Value(ARRAY, bytes(grown))


def _string(cursor: _Cursor, key: str) -> bytes:
    raw = cursor.take(8, key)
    length = int.from_bytes(raw, "little")
    if length > MAX_STRING_BYTES:
        raise ModelFileDamaged(f"{key} has a string of {length} bytes, at most {MAX_STRING_BYTES} are read")
    return raw + cursor.take(length, key)


def _tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    expected = 0
    for _ in range(count):
        name = cursor.name("a tensor's name", MAX_TENSOR_NAME_BYTES)
        if name in tensors:
            raise ModelFileDamaged(f"tensor {name} stands twice")
        tensor = _tensor(cursor, name)
        if tensor.offset != expected:
            raise ModelFileDamaged(f"tensor {name} lies at offset {tensor.offset}, {expected} is its place")
        expected = padded(tensor.offset + tensor.size_bytes, alignment)
        tensors[name] = tensor
    return tuple(tensors.values())


def _tensor(cursor: _Cursor, name: str) -> Tensor:
    dimensions = cursor.u32(name)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ModelFileDamaged(
            f"tensor {name} has {dimensions} dimensions, 1 to {MAX_DIMENSIONS} are allowed"
        )
    shape = tuple(cursor.u64(name) for _ in range(dimensions))
    kind, offset = cursor.u32(name), cursor.u64(name)
    if kind not in TENSOR_KINDS:
        raise ModelFileDamaged(f"tensor {name} has type {kind}, which is not known here")
    if min(shape) < 1 or max(shape) > MAX_TENSOR_ELEMENTS or prod(shape) > MAX_TENSOR_ELEMENTS:
        raise ModelFileDamaged(f"tensor {name} has shape {shape}")
    elements = TENSOR_KINDS[kind][1]
    if shape[0] % elements:
        raise ModelFileDamaged(f"tensor {name} has rows of {shape[0]}, not of whole blocks of {elements}")
    return Tensor(name, shape, kind, offset)
