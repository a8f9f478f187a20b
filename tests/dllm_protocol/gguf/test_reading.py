"""Heads of model files: what is read, and what is refused under which name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.gguf import kinds
from dllm_protocol.gguf.errors import ModelFileDamaged, ModelFileTruncated, NotAModelFile
from dllm_protocol.gguf.head import Tensor, Value, encode_head, padded, spelled, text, truth, truths, u32
from dllm_protocol.gguf.reading import MAX_ELEMENTS, MAX_HEAD_BYTES, MAX_KEYS, MAX_TENSORS, read_head
from local_worker.model_files import packaged_model

HOSTILE_U64 = (0, 1, 31, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def key(name: str, kind: int, value: bytes) -> bytes:
    return spelled(name.encode()) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    head = spelled(name.encode()) + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


def file(
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    data: int = 0,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file as an attacker writes it."""
    tensor_count, key_count = counts or (len(tensors), len(keys))
    raw = magic + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join(keys) + b"".join(tensors)
    return raw + bytes(padded(len(raw)) - len(raw)) + bytes(data) if tensors else raw


def read(data: bytes) -> object:
    return read_head(BytesIO(data).read, len(data))


def test_a_file_of_another_writer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint32("a.u32", 7)
    writer.add_int64("a.i64", -7)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "grüße")
    writer.add_array("a.words", ["one", "", "three"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.truths", [True, False])
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.arange(4, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    head = read_head(BytesIO(data).read, len(data))
    found = head.metadata
    assert (found["a.u32"].integer("it"), found["a.i64"].integer("it"), found["a.bool"].integer("it")) == (
        7,
        -7,
        1,
    )
    assert found["a.text"].text("it") == "grüße"
    assert (
        found["a.words"].count(),
        found["a.numbers"].integers("it"),
        found["a.truths"].integers("it"),
    ) == (
        3,
        [1, 2, 3],
        [1, 0],
    )
    assert [(one.name, one.shape, one.kind_name, one.offset) for one in head.tensors] == [
        ("one", (3, 2), "F32", 0),
        ("two", (4,), "F16", 32),
    ]
    start = head.data_start
    assert np.frombuffer(data[start : start + 24], "<f4").tolist() == list(range(6))


def test_the_packaged_model_is_read_as_the_other_reader_reads_it() -> None:
    path = packaged_model()
    with path.open("rb") as stream:
        head = read_head(stream.read, path.stat().st_size)
    other = gguf.GGUFReader(str(path))
    assert [(one.name, one.shape, one.offset + head.data_start) for one in head.tensors] == [
        (one.name, tuple(int(n) for n in one.shape), one.data_offset) for one in other.tensors
    ]
    assert set(head.metadata) == {name for name in other.fields if not name.startswith("GGUF.")}


def test_what_is_written_is_read_again() -> None:
    metadata = {"b": u32(7), "a": text("x"), "c": truths([True, False]), "d": truth(True)}
    raw, head = encode_head(metadata, [Tensor("t", (8, 2), 0), Tensor("s", (32,), 8)])
    again = read_head(BytesIO(raw).read, head.size_bytes)
    assert (again.metadata, again.tensors, again.data_start) == (metadata, head.tensors, len(raw))
    assert list(again.metadata) == ["a", "b", "c", "d"]
    assert head.size_bytes == len(raw) + 64 + 64


def test_a_part_of_an_array() -> None:
    array = Value(kinds.ARRAY, struct.pack("<IQ4i", kinds.INT32, 4, 5, -6, 7, 8))
    assert array.part(1, 3).integers("it") == [-6, 7]
    for first, end in ((0, 5), (3, 2), (-1, 2)):
        with pytest.raises(ModelFileDamaged):
            array.part(first, end)
    for wrong in (u32(1), text("x"), Value(kinds.ARRAY, struct.pack("<IQ", kinds.STRING, 0))):
        with pytest.raises(ModelFileDamaged):
            wrong.part(0, 0)
        with pytest.raises(ModelFileDamaged):
            wrong.integers("it")


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", NotAModelFile, "a file of 0 bytes"),
        (b"GGUF\x03\0\0\0", NotAModelFile, "a file of 8 bytes"),
        (file(magic=b"GGML"), NotAModelFile, "begins with b'GGML'"),
        (file(version=1), NotAModelFile, "version 1"),
        (file(version=4), NotAModelFile, "version 4"),
        (file(version=3 << 24), NotAModelFile, "big-endian"),
        (file(counts=(MAX_TENSORS + 1, 0)), ModelFileDamaged, "65537 tensors"),
        (file(counts=(0, MAX_KEYS + 1)), ModelFileDamaged, "4097 keys"),
        (file(counts=(1 << 63, 1 << 63)), ModelFileDamaged, "tensors and"),
        (file(counts=(0, 1)), ModelFileTruncated, "a key's name"),
        (file((key("a", 4, bytes(4)), key("a", 4, bytes(4)))), ModelFileDamaged, "key a stands twice"),
        (file((key("", 4, bytes(4)),)), ModelFileDamaged, "a key's name has 0 bytes"),
        (file((key("k" * 257, 4, bytes(4)),)), ModelFileDamaged, "257 bytes"),
        (file((key("a b", 4, bytes(4)),)), ModelFileDamaged, "not plain ASCII"),
        (file((key("a\x1b[2J", 4, bytes(4)),)), ModelFileDamaged, "not plain ASCII"),
        (file((key("a", 13, bytes(4)),)), ModelFileDamaged, "kind 13"),
        (file((key("a", 7, b"\x02"),)), ModelFileDamaged, "a truth value of 2"),
        (file((key("a", 8, struct.pack("<Q", 1 << 63)),)), ModelFileDamaged, "a string of"),
        (file((key("a", 8, struct.pack("<Q", 9)),)), ModelFileTruncated, "in a, 9 bytes"),
        (file((key("a", 9, struct.pack("<IQ", 9, 1)),)), ModelFileDamaged, "array of kind 9"),
        (file((key("a", 9, struct.pack("<IQ", 99, 1)),)), ModelFileDamaged, "array of kind 99"),
        (file((key("a", 9, struct.pack("<IQ", 0, MAX_ELEMENTS + 1)),)), ModelFileDamaged, "elements"),
        (file((key("a", 9, struct.pack("<IQ", 8, 1 << 20)),)), ModelFileTruncated, "has no room for them"),
        (file((key("a", 9, struct.pack("<IQ", 7, 2) + b"\x01\x07"),)), ModelFileDamaged, "other than 0 and 1"),
        (file((key("general.alignment", 4, struct.pack("<I", 24)),)), ModelFileDamaged, "power of two"),
        (file((key("general.alignment", 4, struct.pack("<I", 1 << 17)),)), ModelFileDamaged, "power of two"),
        (file((key("general.alignment", 10, struct.pack("<Q", 32)),)), ModelFileDamaged, "general.alignment is 0"),
        (file((), (tensor("t", (4,)),)), ModelFileTruncated, "the tensors end at byte"),
        (file((), (tensor("t", (4,)), tensor("t", (4,), offset=32)), data=64), ModelFileDamaged, "t stands twice"),
        (file((), (tensor("t", (4,)), tensor("u", (4,), offset=16)), data=64), ModelFileDamaged, "offset 16, 32"),
        (file((), (tensor("t", (4,), offset=32),), data=64), ModelFileDamaged, "offset 32, 0"),
        (file((), (tensor("t", (4,), offset=1 << 63),), data=64), ModelFileDamaged, "its place"),
        (file((), (tensor("t", ()),), data=64), ModelFileDamaged, "0 dimensions"),
        (file((), (tensor("t", (1, 1, 1, 1, 1)),), data=64), ModelFileDamaged, "5 dimensions"),
        (file((), (tensor("t", (4, 0)),), data=64), ModelFileDamaged, "shape"),
        (file((), (tensor("t", (1 << 32, 1 << 32)),), data=64), ModelFileDamaged, "shape"),
        (file((), (tensor("t", (1 << 63,)),), data=64), ModelFileDamaged, "shape"),
        (file((), (tensor("t", (4,), kind=4),), data=64), ModelFileDamaged, "type 4"),
        (file((), (tensor("t", (4,), kind=1 << 31),), data=64), ModelFileDamaged, "not known here"),
        (file((), (tensor("t", (33, 2), kind=8),), data=128), ModelFileDamaged, "not of whole blocks of 32"),
        (file((), (tensor("n" * 64, (4,)),), data=64), ModelFileDamaged, "64 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(data: bytes, error: type[MalformedBytes], words: str) -> None:
    with pytest.raises(error, match=words):
        read(data)


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_is_refused(at: int) -> None:
    whole = file((key("a", 8, spelled(b"words")),), (tensor("t", (64,)),), data=256)
    with pytest.raises((ModelFileTruncated, NotAModelFile)):
        read(whole[: at % len(whole)])


@given(st.data())
def test_no_number_anywhere_makes_it_take_what_is_not_there(data: st.DataObject) -> None:
    """Each 8 bytes of a head replaced by a hostile number: read as something or refused, never more than the file."""
    whole = bytearray(
        file((key("a", 9, struct.pack("<IQ", 8, 1) + spelled(b"word")),), (tensor("t", (64,)),), data=256)
    )
    at = data.draw(st.integers(4, len(whole) - 256 - 8))
    whole[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from(HOSTILE_U64)))
    stream = BytesIO(bytes(whole))
    asked = []

    def counted(count: int) -> bytes:
        asked.append(count)
        return stream.read(count)

    try:
        read_head(counted, len(whole))
    except MalformedBytes as error:
        assert len(str(error)) < 300
    assert sum(asked) <= len(whole)


def test_a_head_beyond_its_bound_is_refused_before_it_is_read() -> None:
    words = key("a", 8, struct.pack("<Q", 16 << 20))
    count = MAX_HEAD_BYTES // (16 << 20) + 2
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, count)
    taken = 0

    def endless(wanted: int) -> bytes:
        nonlocal taken
        # Each string has a name of its own, and 16 MiB of zeros.
        place, taken = taken, taken + wanted
        return _endless(head, words, place, wanted)

    with pytest.raises(ModelFileDamaged, match="lies beyond the first 67108864 bytes"):
        read_head(endless, 1 << 40)
    assert taken <= MAX_HEAD_BYTES


def _endless(head: bytes, words: bytes, place: int, wanted: int) -> bytes:
    period = len(words) + (16 << 20)
    out = bytearray()
    while len(out) < wanted:
        at = place + len(out)
        if at < len(head):
            out += head[at : at + wanted]
            continue
        number, inside = divmod(at - len(head), period)
        if inside < len(words):
            named = words.replace(b"a", bytes((98 + number,)), 1)
            out += named[inside:][: wanted - len(out)]
        else:
            out += bytes(min(period - inside, wanted - len(out)))
    return bytes(out)


def test_sizes_of_tensor_types_are_llama_cpps(llama_library: Callable[[str], Callable[[int], int]]) -> None:
    elements, size = llama_library("ggml_blck_size"), llama_library("ggml_type_size")
    assert {kind: (elements(kind), size(kind)) for kind in kinds.TENSOR_KINDS} == {
        kind: (block, block_bytes) for kind, (_, block, block_bytes) in kinds.TENSOR_KINDS.items()
    }


@pytest.fixture
def llama_library() -> Callable[[str], Callable[[int], int]]:
    """Functions of the ggml that llama.cpp brings."""
    import ctypes

    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(iter(sorted(folder.glob("libggml-base.*"))))))

    def function(name: str) -> Callable[[int], int]:
        found = getattr(library, name)
        found.restype = ctypes.c_size_t
        found.argtypes = [ctypes.c_int]
        return lambda kind: int(found(kind))

    return function
