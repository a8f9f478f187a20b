"""A model's files as they come: one GGUF, or the parts of a split one; only heads are held in memory."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dllm_protocol.errors import UsageRefused
from dllm_protocol.gguf.errors import ModelFileDamaged, ModelFileTruncated
from dllm_protocol.gguf.head import Head, Tensor, Value
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_package.errors import ModelShapeRefused
from local_worker.packages.disk import COPY_BYTES
from local_worker.packages.errors import ModelChanged

MAX_PARTS = 1024
_PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_COUNT_KEY, _NUMBER_KEY, _TENSORS_KEY = "split.count", "split.no", "split.tensors.count"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's data lies."""

    part: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    descriptor: int
    stamp: tuple[int, int, int]


@dataclass(slots=True)
class ModelSource:
    """A whole model, open for reading."""

    metadata: Mapping[str, Value]
    tensors: list[Tensor]
    """Of all parts; offsets are those of their own files."""
    _parts: list[_Part] = field(repr=False)
    _places: dict[str, _Place] = field(repr=False)

    def data(self, name: str) -> Iterator[bytes]:
        """A tensor's bytes, in portions of bounded size.

        Raises:
            ModelFileTruncated: the file became shorter.
        """
        place = self._places[name]
        descriptor = self._parts[place.part].descriptor
        at, end = place.offset, place.offset + place.size_bytes
        while at < end:
            with _named(self._parts[place.part].path):
                portion = os.pread(descriptor, min(COPY_BYTES, end - at), at)
            if not portion:
                raise ModelFileTruncated(
                    f"{self._parts[place.part].path.name} ends inside tensor {name}, at byte {at}"
                )
            at += len(portion)
            yield portion

    def check_unchanged(self) -> None:
        """Refuse a model that was written to since it was opened.

        Raises:
            ModelChanged: naming the file.
        """
        for part in self._parts:
            if _stamp(part.descriptor) != part.stamp:
                raise ModelChanged(
                    f"{part.path} was written to while it was read", hint="try again when it rests"
                )


@contextlib.contextmanager
def open_model(path: Path) -> Iterator[ModelSource]:
    """Open a model by its file, or by any part of a split one.

    Raises:
        UsageRefused: no such file.
        NotAModelFile, ModelFileTruncated, ModelFileDamaged, ModelShapeRefused: what is wrong with it.
    """
    with contextlib.ExitStack() as stack:
        parts: list[_Part] = []
        heads: list[Head] = []
        for one in part_paths(path):
            part, head = _open_part(one, stack)
            parts.append(part)
            heads.append(head)
        _check_split(parts, heads)
        places: dict[str, _Place] = {}
        tensors: list[Tensor] = []
        for number, head in enumerate(heads):
            for tensor in head.tensors:
                if tensor.name in places:
                    raise ModelFileDamaged(f"tensor {tensor.name} is in two of the model's files")
                places[tensor.name] = _Place(number, head.data_start + tensor.offset, tensor.size_bytes)
                tensors.append(tensor)
        yield ModelSource(heads[0].metadata, tensors, parts, places)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """A disk that does not give a file back, by the file's name."""
    try:
        yield
    except OSError as error:
        raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error


def part_paths(path: Path) -> list[Path]:
    """All files of a model, by the name of one of them.

    Raises:
        UsageRefused: a number of parts that there cannot be.
    """
    match = _PART_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    if not 1 <= count <= MAX_PARTS:
        raise UsageRefused(f"{path.name} is one of {count} parts, 1 to {MAX_PARTS} are possible")
    return [path.with_name(f"{match['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]


def _open_part(path: Path, stack: contextlib.ExitStack) -> tuple[_Part, Head]:
    try:
        # Not waiting for a writer: a pipe in the place of a model is refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "all parts of a split model lie in one folder" if _PART_NAME.fullmatch(path.name) else ""
        raise UsageRefused(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    stack.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UsageRefused(f"{path} is no ordinary file")
    part = _Part(path, descriptor, _stamp(descriptor))
    with _named(path):
        return part, read_head(lambda count: os.read(descriptor, count), part.stamp[0])


def _stamp(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _check_split(parts: list[_Part], heads: list[Head]) -> None:
    """Do the files belong together, as they say themselves?"""
    first = heads[0].metadata
    said = first.get(_COUNT_KEY)
    count = said.integer(_COUNT_KEY) if said is not None and not said.is_array() else 0
    if max(count, 1) != len(parts):
        raise ModelShapeRefused(
            f"{parts[0].path.name} says that its model has {max(count, 1)} files, by its name it has {len(parts)}",
            hint="the parts of a split model are called NAME-00001-of-0000N.gguf",
        )
    if len(parts) == 1:
        return
    for number, (part, head) in enumerate(zip(parts, heads, strict=True)):
        own = head.metadata.get(_NUMBER_KEY)
        if own is None or own.is_array() or own.integer(_NUMBER_KEY) != number:
            raise ModelShapeRefused(
                f"{part.path.name} is not part {number + 1} of its model, as its name says"
            )
    said = first.get(_TENSORS_KEY)
    found = sum(len(head.tensors) for head in heads)
    announced = said.integer(_TENSORS_KEY) if said is not None else found
    if announced != found:
        raise ModelShapeRefused(f"the parts have {found} tensors, the first announces {announced}")
