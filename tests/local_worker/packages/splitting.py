"""Splits a model's file as llama.cpp's own tool does."""

from __future__ import annotations

import struct
from pathlib import Path

from dllm_protocol.gguf.head import Tensor, Value, encode_head, padded
from dllm_protocol.gguf.kinds import INT32, UINT16
from dllm_protocol.gguf.reading import read_head


def split(model: Path, folder: Path, count: int, *, doubled: str = "") -> list[Path]:
    """Parts called ``NAME-0000i-of-0000n.gguf``: metadata in the first one, tensors dealt out in their order.

    Args:
        doubled: a tensor that the last part has as well.
    """
    data = model.read_bytes()
    with model.open("rb") as stream:
        head = read_head(stream.read, len(data))
    tensors = list(head.tensors)
    share = -(-len(tensors) // count)
    paths = []
    for number in range(count):
        own = tensors[number * share : (number + 1) * share]
        if number == count - 1:
            own += [one for one in tensors if one.name == doubled and one not in own]
        metadata = dict(head.metadata) if number == 0 else {}
        metadata["split.no"] = Value(UINT16, struct.pack("<H", number))
        metadata["split.count"] = Value(UINT16, struct.pack("<H", count))
        total = len(tensors) + bool(doubled)
        metadata["split.tensors.count"] = Value(INT32, struct.pack("<i", total))
        raw, _ = encode_head(metadata, [Tensor(one.name, one.shape, one.kind) for one in own])
        for one in own:
            values = data[head.data_start + one.offset :][: one.size_bytes]
            raw += values + bytes(padded(len(values)) - len(values))
        paths.append(folder / f"split-{number + 1:05}-of-{count:05}.gguf")
        paths[-1].write_bytes(raw)
    return paths
