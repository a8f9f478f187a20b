"""Which models may be cut between blocks, and what each needs for it: an allow-list, everything else is refused.

A chunk is loaded by llama.cpp as if it were a whole model, so what llama.cpp works out from a block's number, or from
the number of blocks, must come out as it does in the whole model. Each architecture here was read for that, and is
proven by tests that compare every split's logits with the whole model's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dllm_protocol.gguf.head import Value, truths, u32
from dllm_protocol.model_package.errors import ArchitectureRefused

PER_LAYER_KEYS: Final = (
    "attention.head_count",
    "attention.head_count_kv",
    "attention.sliding_window_pattern",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
)
"""Keys behind ``<architecture>.`` that may have one value a block."""

WINDOW_KEY: Final = "attention.sliding_window"
PATTERN_KEY: Final = "attention.sliding_window_pattern"
_ROTARY_KEY, _WINDOWED_ROTARY_KEY = "rope.freq_base", "rope.freq_base_swa"
_ENDLESS_WINDOW: Final = 1 << 30
"""Rows of a window that hides nothing: more than any context has."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture that can be cut."""

    name: str
    window_period: int = 0
    """Every how many blocks one has no sliding window, where the file does not say; 0: no block has a window."""
    window_by_default: bool = False
    """Whether blocks have a window even where the file names no window's size."""
    is_always_tied: bool = False
    """Whether the output matrix is always the embedding."""
    is_never_tied: bool = False
    """Whether llama.cpp insists on an output matrix of its own."""
    entry_scale_key: str = ""
    """The key of a factor that multiplies whatever enters the first block: a chunk's hidden states have it already."""
    counts_that_change_it: tuple[int, ...] = ()
    """Numbers of blocks that llama.cpp takes as the sign of another model, and scales attention differently."""


ARCHITECTURES: Final = {
    one.name: one
    for one in (
        Architecture("llama"),
        Architecture("qwen2"),
        Architecture("qwen3"),
        Architecture("qwen3moe"),
        Architecture(
            "gemma2",
            window_period=2,
            window_by_default=True,
            is_always_tied=True,
            counts_that_change_it=(46,),
        ),
        Architecture("gemma3", window_period=6, counts_that_change_it=(62,)),
        Architecture("gpt-oss", window_period=2, window_by_default=True, is_never_tied=True),
        Architecture("granite", entry_scale_key="embedding_scale"),
        Architecture("mistral3"),
        Architecture("phi3"),
    )
}
"""By llama.cpp's name. Mistral's models are ``llama`` or ``mistral3``."""

_COUNTED = "llama.cpp works out from a block's number which blocks go without rotary positions"
_LATER_INPUT = "its later blocks need token ids, which only the first chunk has"
_STREAMS = "its blocks hand on several streams, one hidden state a row is not enough"
_RECURRENT = "it keeps a recurrent state, which cannot be cut back to an earlier row"
_MANY_POSITIONS = "it has several positions a row, which hidden states do not carry"
REFUSED: Final = {
    "afmoe": _COUNTED,
    "baichuan": "llama.cpp takes its position encoding from the number of blocks",
    "deepseek2": "llama.cpp takes its routing of experts from the number of blocks",
    "deepseek4": _STREAMS,
    "exaone4": "llama.cpp takes its sliding window from the number of blocks",
    "falcon-h1": _RECURRENT,
    "gemma3n": _LATER_INPUT,
    "gemma4": _LATER_INPUT,
    "glm4": _MANY_POSITIONS,
    "granitehybrid": _RECURRENT,
    "jamba": _RECURRENT,
    "llama4": _COUNTED,
    "mamba": _RECURRENT,
    "mamba2": _RECURRENT,
    "minicpm": "llama.cpp takes the scale of each block's output from the number of blocks",
    "qwen2vl": _MANY_POSITIONS,
    "qwen3vl": _MANY_POSITIONS,
    "qwen3vlmoe": _MANY_POSITIONS,
    "qwen35": _MANY_POSITIONS,
    "qwen35moe": _MANY_POSITIONS,
    "qwen4exp": _STREAMS,
    "rwkv6": _RECURRENT,
    "rwkv7": _RECURRENT,
    "smallthinker": _COUNTED,
    "smollm3": _COUNTED,
}
"""Architectures that are known and cannot be cut, and why."""


def architecture_named(name: str) -> Architecture:
    """What there is to know of an architecture that can be cut.

    Raises:
        ArchitectureRefused: with the reason.
    """
    found = ARCHITECTURES.get(name)
    if found is None:
        reason = REFUSED.get(name, "nobody has proven yet that a chunk of it computes what the whole does")
        raise ArchitectureRefused(
            f"models of architecture {name[:64]!r} cannot be cut into chunks: {reason}",
            hint=f"these can: {', '.join(sorted(ARCHITECTURES))}; others can be served whole, by one machine",
        )
    return found


def check_traits(found: Architecture, metadata: Mapping[str, Value], layers: int) -> None:
    """Refuse a model that has traits which do not survive a cut.

    Raises:
        ArchitectureRefused: naming the trait.
    """
    if layers in found.counts_that_change_it:
        raise ArchitectureRefused(
            f"{found.name} with {layers} blocks (27B) cannot be cut into chunks: llama.cpp takes the scale of its "
            "attention from the number of blocks",
            hint="it can be served whole, by one machine",
        )
    for key, why in (
        ("nextn_predict_layers", "blocks that predict further tokens stand behind its last one"),
        ("pooling_type", "it makes embeddings, not text"),
        ("attention.recurrent_layers", _RECURRENT),
    ):
        value = metadata.get(f"{found.name}.{key}")
        if value is not None and (value.is_array() or value.integer(key) > 0):
            raise ArchitectureRefused(f"the model has {found.name}.{key}, so it cannot be cut: {why}")
    causal = metadata.get(f"{found.name}.attention.causal")
    if causal is not None and not causal.integer("attention.causal"):
        raise ArchitectureRefused("the model looks ahead (attention.causal is false), so it cannot be cut")


def windows(found: Architecture, metadata: Mapping[str, Value], layers: int) -> tuple[bool, ...] | None:
    """Which blocks have a sliding window, as llama.cpp works it out for the whole model; None where none may have.

    llama.cpp reads a period from a block's own number, ``number % period < period - 1``, which a chunk's blocks do not
    have any more: a chunk gets one truth value a block instead.
    """
    size = metadata.get(f"{found.name}.{WINDOW_KEY}")
    has_size = size is not None and not size.is_array() and size.integer(WINDOW_KEY) > 0
    if not found.window_period or not (has_size or found.window_by_default):
        return None
    pattern = metadata.get(f"{found.name}.{PATTERN_KEY}")
    if pattern is not None and pattern.is_array():
        return tuple(bool(one) for one in pattern.integers(PATTERN_KEY)[:layers])
    period = found.window_period if pattern is None else pattern.integer(PATTERN_KEY)
    return tuple(period == 0 or layer % period < period - 1 for layer in range(layers))


def kept_windows(
    found: Architecture,
    kept: Mapping[str, Value],
    whole: Mapping[str, Value],
    layers: int,
    first: int,
    end: int,
) -> dict[str, Value]:
    """A chunk's metadata with the windows that its blocks have in the whole model.

    llama.cpp ends the process over a model that may have windows and has none, as a chunk can be. Where the
    architecture is one that has none as soon as no size is named, that is left out; else all blocks get a window that
    hides nothing, with the rotary base of blocks without one.
    """
    made = dict(kept)
    pattern = windows(found, whole, layers)
    if pattern is None:
        return made
    own = pattern[first:end]
    size_key, pattern_key = f"{found.name}.{WINDOW_KEY}", f"{found.name}.{PATTERN_KEY}"
    if any(own):
        made[pattern_key] = truths(own)
    elif found.window_by_default:
        made[pattern_key] = truths([True] * len(own))
        made[size_key] = u32(_ENDLESS_WINDOW)
        made.pop(f"{found.name}.{_WINDOWED_ROTARY_KEY}", None)
        base = whole.get(f"{found.name}.{_ROTARY_KEY}")
        if base is not None:
            made[f"{found.name}.{_WINDOWED_ROTARY_KEY}"] = base
    else:
        made.pop(pattern_key, None)
        made.pop(size_key, None)
    return made
