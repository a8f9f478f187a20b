"""How much of a model goes where, and how many sessions fit beside it: worked out from measured memory.

An engine takes its memory when it starts: weights, one batch's intermediate results, and KV for every row that it may
hold. So a worker that started keeps what it has, and what it says it can hold, it can hold. Numbers named by a person
are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dllm_protocol.errors import UsageRefused
from dllm_protocol.gguf.head import Head
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_package.errors import ModelShapeRefused
from dllm_protocol.model_package.probe import short_context_rows
from local_worker.memory import FreeMemory

DEFAULT_CONTEXT_ROWS: Final = 4096
LEAST_CONTEXT_ROWS: Final = 256
"""llama.cpp rounds up to a multiple of it."""
_SMALL_CONTEXT_ROWS: Final = 1024
"""Contexts are not made shorter than this for the sake of a second session."""
MOST_SEQUENCES: Final = 8
"""By default; each has KV memory of its own, and a CPU gains little from more rows in a batch."""
RESERVE_BYTES: Final = 128 << 20
"""For the service, the engine's program and llama.cpp's own tables."""
_RESERVE_SHARE: Final = 8
"""One part in so many of what is free stays free: this machine has other things to do."""
DEVICE_RESERVE_BYTES: Final = 512 << 20
"""On a graphics card: its own tables, intermediate results, a screen."""
_BATCH_ROWS: Final = 256
_KV_BYTES: Final = 2  # f16


class NoRoom(UsageRefused):
    """A model does not fit into the memory that is free."""

    code = "E_NO_ROOM"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model file takes, in bytes."""

    layers: int
    layer_bytes: int
    """Weights of its largest layer."""
    other_bytes: int
    """Weights outside of the layers."""
    kv_row_bytes: int
    """Keys and values of one row in all layers."""
    batch_bytes: int
    """Intermediate results of the largest batch, at most."""
    context_train: int
    """Rows that the model was made for; 0 = not said."""
    short_rows: int | None = None
    """Longest context that leaves its keys rotated as in shorter ones; None: any does."""

    @property
    def weight_bytes(self) -> int:
        """All weights, at most."""
        return self.layers * self.layer_bytes + self.other_bytes

    def without(self, layers: int) -> Needs:
        """What is left for this machine's memory when so many layers are on a graphics card."""
        left = max(0, self.layers - layers)
        kept = self.kv_row_bytes * left // self.layers if self.layers else 0
        return replace(self, layers=left, kv_row_bytes=kept)


@dataclass(frozen=True, slots=True)
class Places:
    """What an engine is started with."""

    sequences: int
    context_rows: int


def needs_of_file(path: Path) -> Needs:
    """What a file's head says that it takes.

    Raises:
        OSError: it cannot be read.
        NotAModelFile, ModelFileTruncated, ModelFileDamaged: saying what and where.
    """
    with path.open("rb") as file:
        return needs_of(read_head(file.read, path.stat().st_size))


def needs_of(head: Head) -> Needs:
    """The same of a head; what it does not say counts as 0.

    Raises:
        ModelFileDamaged: a value of the wrong kind.
    """
    architecture = _text(head, "general.architecture")

    def number(name: str, default: int = 0) -> int:
        key = f"{architecture}.{name}"
        value = head.metadata.get(key)
        if value is None:
            return default
        return max(value.integers(key), default=0) if value.is_array() else value.integer(key)

    layers = number("block_count")
    by_layer: dict[str, int] = {}
    other_bytes = 0
    for tensor in head.tensors:
        if tensor.name.startswith("blk."):
            layer = tensor.name.split(".")[1]
            by_layer[layer] = by_layer.get(layer, 0) + tensor.size_bytes
        else:
            other_bytes += tensor.size_bytes
    width, heads = number("embedding_length"), max(1, number("attention.head_count", 1))
    key_width = number("attention.key_length", width // heads)
    value_width = number("attention.value_length", width // heads)
    kv_heads = number("attention.head_count_kv", heads)
    vocabulary = number("vocab_size") or _longest_shape(head, "token_embd.weight")
    batch_numbers = vocabulary + 4 * number("feed_forward_length") + 8 * width
    return Needs(
        layers=layers,
        layer_bytes=max(by_layer.values(), default=0),
        other_bytes=other_bytes,
        kv_row_bytes=layers * kv_heads * (key_width + value_width) * _KV_BYTES,
        batch_bytes=4 * _BATCH_ROWS * batch_numbers,
        context_train=number("context_length"),
        short_rows=_short_rows(architecture, head),
    )


def places(needs: Needs, free: FreeMemory, *, sequences: int | None, context_rows: int | None) -> Places:
    """How many sessions with how many rows each fit.

    Args:
        needs: of what goes into this machine's memory.
        sequences: as a person said; None works it out.
        context_rows: likewise.

    Raises:
        NoRoom: not even the smallest fits, with what is needed and what is free.
    """
    if sequences is not None and context_rows is not None:
        return Places(sequences, context_rows)
    reserve_bytes = reserve_of(free)
    taken_bytes = needs.weight_bytes + needs.batch_bytes + reserve_bytes
    left_bytes = free.free_bytes - taken_bytes
    rows = left_bytes // needs.kv_row_bytes if needs.kv_row_bytes else left_bytes
    longest = longest_context(needs)
    if context_rows is not None:
        found = Places(min(MOST_SEQUENCES, rows // context_rows), context_rows)
    elif sequences is not None:
        found = Places(sequences, min(longest, _rounded_down(rows // sequences)))
    else:
        found = _best(rows, longest)
    if found.sequences < 1 or found.context_rows < LEAST_CONTEXT_ROWS:
        least = (context_rows or LEAST_CONTEXT_ROWS) * (sequences or 1) * needs.kv_row_bytes
        raise NoRoom(
            f"the model takes {_mib(needs.weight_bytes + needs.batch_bytes)}, the least context {_mib(least)}, and "
            f"{_mib(reserve_bytes)} stay in reserve: more than {free.free_bytes >> 20} MiB ({free.bound})",
            hint="free some memory, serve fewer layers with --layers, or a smaller model",
        )
    return found


def reserve_of(free: FreeMemory) -> int:
    """Bytes that no engine takes."""
    return max(RESERVE_BYTES, free.free_bytes // _RESERVE_SHARE)


def longest_context(needs: Needs) -> int:
    """Rows that a session may have where memory is no bound and nobody named a number.

    All who are told nothing stand on the same side of a model that computes otherwise from a length on.
    """
    longest = _rounded_up(min(DEFAULT_CONTEXT_ROWS, needs.context_train or DEFAULT_CONTEXT_ROWS))
    if needs.short_rows is None:
        return longest
    return max(LEAST_CONTEXT_ROWS, min(longest, _rounded_down(needs.short_rows)))


def device_layers(needs: Needs, free_bytes: int, rows: int) -> int:
    """How many of a model's layers a graphics card takes, the last ones first; one more stands for the output.

    Args:
        free_bytes: of memory on the card.
        rows: that all sessions hold together.
    """
    left_bytes = free_bytes - DEVICE_RESERVE_BYTES - needs.batch_bytes
    kv_bytes = rows * needs.kv_row_bytes // max(1, needs.layers)
    fitting = max(0, left_bytes) // max(1, needs.layer_bytes + kv_bytes)
    if fitting < needs.layers:
        return int(fitting)
    rest = left_bytes - needs.layers * (needs.layer_bytes + kv_bytes)
    return needs.layers + (rest >= needs.other_bytes)


def _best(rows: int, longest: int) -> Places:
    """The longest context that two sessions can have; a shorter one for one alone."""
    context = longest
    while context > _SMALL_CONTEXT_ROWS and rows // context < 2:
        context = _rounded_up(context // 2)
    while context > LEAST_CONTEXT_ROWS and rows < context:
        context = _rounded_up(context // 2)
    return Places(min(MOST_SEQUENCES, max(0, rows) // context), context)


def _rounded_up(rows: int) -> int:
    return -(-rows // LEAST_CONTEXT_ROWS) * LEAST_CONTEXT_ROWS


def _rounded_down(rows: int) -> int:
    return max(0, rows) // LEAST_CONTEXT_ROWS * LEAST_CONTEXT_ROWS


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // (1 << 20))} MiB"


def _text(head: Head, key: str) -> str:
    value = head.metadata.get(key)
    return value.text(key) if value is not None else ""


def _short_rows(architecture: str, head: Head) -> int | None:
    try:
        return short_context_rows(architecture, head.metadata, [tensor.name for tensor in head.tensors])
    except ModelShapeRefused:
        return None  # llama.cpp says what it thinks of that


def _longest_shape(head: Head, name: str) -> int:
    return next((tensor.shape[-1] for tensor in head.tensors if tensor.name == name), 0)
