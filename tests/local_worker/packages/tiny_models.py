"""Models of every architecture that can be cut: a few blocks, random weights, real to llama.cpp in everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from benchmarks.random_model import add_tokenizer

VOCABULARY = 512
CONTEXT_ROWS = 512
Tensors = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Shape:
    """One model.

    Attributes:
        arch: llama.cpp's name.
        head: width of an attention head.
        own_output: whether it has an output matrix of its own.
        more: further metadata, written by a function.
        outside: tensors beside the blocks: name and values.
        distinct_rows: rows of a matrix after which they come again, for large files in little time; 0: none does.
    """

    name: str
    arch: str
    layers: int = 4
    n_embd: int = 32
    n_ff: int = 64
    heads: int = 4
    kv_heads: int = 2
    head: int = 8
    own_output: bool = True
    experts: int = 0
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None
    outside: tuple[tuple[str, npt.NDArray[np.float32]], ...] = ()
    seed: int = 7
    kv_heads_by_layer: tuple[int, ...] = field(default=())
    distinct_rows: int = 0


def write_model(path: Path, shape: Shape) -> Path:
    """The same shape gives the same bytes."""
    writer = gguf.GGUFWriter(str(path), shape.arch)
    # llama.cpp gives tokenizers traits by what a model is called.
    writer.add_name(f"random weights {shape.seed}")
    writer.add_block_count(shape.layers)
    writer.add_context_length(CONTEXT_ROWS)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(list(shape.kv_heads_by_layer) or shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(shape.n_ff)
    shape.more(writer)
    add_tokenizer(writer, VOCABULARY)
    chance = np.random.default_rng(shape.seed)
    for name, dimensions in _tensors(shape):
        rows = dimensions[0]
        distinct_rows = min(rows, shape.distinct_rows or rows) if len(dimensions) > 1 else rows
        values = chance.standard_normal((distinct_rows, *dimensions[1:]), dtype=np.float32)
        if len(dimensions) == 1:
            # Norms near one, biases small: as trained ones are, and each different from all others.
            values = values * np.float32(0.1) + np.float32(name.endswith("norm.weight"))
            writer.add_tensor(name, values)
        else:
            if name != "token_embd.weight":
                values *= np.float32(dimensions[-1] ** -0.5)
            stored = gguf.quants.quantize(values, shape.kind)
            repeated = np.resize(stored, (rows, *stored.shape[1:]))
            writer.add_tensor(name, repeated, raw_dtype=shape.kind)
    for name, fixed in shape.outside:
        writer.add_tensor(name, fixed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(shape: Shape) -> Tensors:
    yield "token_embd.weight", (VOCABULARY, shape.n_embd)
    yield "output_norm.weight", (shape.n_embd,)
    if shape.own_output:
        yield "output.weight", (VOCABULARY, shape.n_embd)
    for layer in range(shape.layers):
        kv_heads = shape.kv_heads_by_layer[layer] if shape.kv_heads_by_layer else shape.kv_heads
        for name, dimensions in _BLOCKS[shape.arch](shape, kv_heads):
            yield f"blk.{layer}.{name}", dimensions


def _attention(shape: Shape, kv_heads: int) -> Tensors:
    yield "attn_norm.weight", (shape.n_embd,)
    yield "attn_q.weight", (shape.heads * shape.head, shape.n_embd)
    yield "attn_k.weight", (kv_heads * shape.head, shape.n_embd)
    yield "attn_v.weight", (kv_heads * shape.head, shape.n_embd)
    yield "attn_output.weight", (shape.n_embd, shape.heads * shape.head)
    yield "ffn_norm.weight", (shape.n_embd,)


def _dense(shape: Shape) -> Tensors:
    yield "ffn_gate.weight", (shape.n_ff, shape.n_embd)
    yield "ffn_up.weight", (shape.n_ff, shape.n_embd)
    yield "ffn_down.weight", (shape.n_embd, shape.n_ff)


def _experts(shape: Shape) -> Tensors:
    yield "ffn_gate_inp.weight", (shape.experts, shape.n_embd)
    yield "ffn_gate_exps.weight", (shape.experts, shape.n_ff, shape.n_embd)
    yield "ffn_up_exps.weight", (shape.experts, shape.n_ff, shape.n_embd)
    yield "ffn_down_exps.weight", (shape.experts, shape.n_embd, shape.n_ff)


def _head_norms(shape: Shape) -> Tensors:
    yield "attn_q_norm.weight", (shape.head,)
    yield "attn_k_norm.weight", (shape.head,)


def _llama(shape: Shape, kv_heads: int) -> Tensors:
    yield from _attention(shape, kv_heads)
    yield from _experts(shape) if shape.experts else _dense(shape)


def _qwen2(shape: Shape, kv_heads: int) -> Tensors:
    yield from _attention(shape, kv_heads)
    yield from _dense(shape)
    yield "attn_q.bias", (shape.heads * shape.head,)
    yield "attn_k.bias", (kv_heads * shape.head,)
    yield "attn_v.bias", (kv_heads * shape.head,)


def _qwen3(shape: Shape, kv_heads: int) -> Tensors:
    yield from _attention(shape, kv_heads)
    yield from _head_norms(shape)
    yield from _experts(shape) if shape.experts else _dense(shape)


def _gemma2(shape: Shape, kv_heads: int) -> Tensors:
    yield from _attention(shape, kv_heads)
    yield from _dense(shape)
    yield "post_attention_norm.weight", (shape.n_embd,)
    yield "post_ffw_norm.weight", (shape.n_embd,)


def _gemma3(shape: Shape, kv_heads: int) -> Tensors:
    yield from _gemma2(shape, kv_heads)
    yield from _head_norms(shape)


def _phi3(shape: Shape, kv_heads: int) -> Tensors:
    yield "attn_norm.weight", (shape.n_embd,)
    yield "attn_qkv.weight", ((shape.heads + 2 * kv_heads) * shape.head, shape.n_embd)
    yield "attn_output.weight", (shape.n_embd, shape.n_embd)
    yield "ffn_norm.weight", (shape.n_embd,)
    yield "ffn_up.weight", (2 * shape.n_ff, shape.n_embd)
    yield "ffn_down.weight", (shape.n_embd, shape.n_ff)


def _gpt_oss(shape: Shape, kv_heads: int) -> Tensors:
    for name, dimensions in _attention(shape, kv_heads):
        yield name.replace("ffn_norm", "post_attention_norm"), dimensions
    yield "attn_sinks.weight", (shape.heads,)
    yield "attn_output.bias", (shape.n_embd,)
    yield from _experts(shape)
    yield "ffn_gate_inp.bias", (shape.experts,)
    yield "ffn_gate_exps.bias", (shape.experts, shape.n_ff)
    yield "ffn_up_exps.bias", (shape.experts, shape.n_ff)
    yield "ffn_down_exps.bias", (shape.experts, shape.n_embd)


_BLOCKS: dict[str, Callable[[Shape, int], Tensors]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt-oss": _gpt_oss,
    "granite": _llama,
    "mistral3": _llama,
    "phi3": _phi3,
}


def _factors(count: int, last: float) -> npt.NDArray[np.float32]:
    return np.linspace(1.0, last, count, dtype=np.float32)


def _yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(128)


def _long_rope(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_orig_ctx_len(64)
    writer.add_rope_scaling_attn_factors(1.19)
    writer.add_sliding_window(32)


def _long_rope_not_reached(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_orig_ctx_len(CONTEXT_ROWS)
    writer.add_rope_scaling_attn_factors(1.19)
    writer.add_sliding_window(32)


def _window_of_gemma2(writer: gguf.GGUFWriter) -> None:
    writer.add_sliding_window(8)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)


def _window_of_gemma3(writer: gguf.GGUFWriter) -> None:
    writer.add_sliding_window(8)
    writer.add_rope_freq_base(1e6)


def _linear_of_gemma3(writer: gguf.GGUFWriter) -> None:
    _window_of_gemma3(writer)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


def _window_by_list(writer: gguf.GGUFWriter) -> None:
    writer.add_sliding_window(8)
    writer.add_sliding_window_pattern([True, False, False, True, True])


def _window_of_gpt_oss(writer: gguf.GGUFWriter) -> None:
    writer.add_sliding_window(8)
    writer.add_rope_freq_base(150000.0)


def _scales_of_granite(writer: gguf.GGUFWriter) -> None:
    writer.add_embedding_scale(12.3)
    writer.add_residual_scale(0.22)
    writer.add_attention_scale(0.3)
    writer.add_logit_scale(7.0)


def _temperature_of_mistral3(writer: gguf.GGUFWriter) -> None:
    _yarn(writer)
    writer.add_attn_temperature_scale(0.1)


_PHI3_FACTORS = (
    ("rope_factors_long.weight", _factors(4, 16.0)),
    ("rope_factors_short.weight", _factors(4, 1.5)),
)
Q8_0 = gguf.GGMLQuantizationType.Q8_0
SHAPES = {
    one.name: one
    for one in (
        Shape("llama", "llama"),
        Shape("llama, tied", "llama", own_output=False),
        Shape("llama, rotary factors", "llama", outside=(("rope_freqs.weight", _factors(4, 8.0)),)),
        Shape("llama, yarn", "llama", more=_yarn),
        Shape("llama, Q8_0", "llama", kind=Q8_0, layers=3),
        Shape("llama, experts", "llama", experts=4, layers=3),
        Shape("llama, heads by block", "llama", kv_heads_by_layer=(2, 2, 2, 2)),
        Shape("qwen2", "qwen2"),
        Shape("qwen2, tied", "qwen2", own_output=False),
        Shape("qwen3", "qwen3"),
        Shape("qwen3, wide heads", "qwen3", head=16),
        Shape("qwen3moe", "qwen3moe", experts=4),
        Shape("gemma2", "gemma2", own_output=False, more=_window_of_gemma2, layers=5),
        Shape("gemma2, no window named", "gemma2", own_output=False),
        Shape("gemma3", "gemma3", own_output=False, more=_window_of_gemma3, layers=8),
        Shape("gemma3, linear scaling", "gemma3", own_output=False, more=_linear_of_gemma3, layers=8),
        Shape("gemma3, windows by list", "gemma3", own_output=False, more=_window_by_list, layers=5),
        Shape("gemma3, no window", "gemma3", own_output=False),
        Shape("gpt-oss", "gpt-oss", experts=4, more=_window_of_gpt_oss),
        Shape("granite", "granite", more=_scales_of_granite),
        Shape("granite, tied", "granite", more=_scales_of_granite, own_output=False),
        Shape("mistral3", "mistral3", more=_temperature_of_mistral3),
        Shape("phi3", "phi3", kv_heads=4),
        Shape("phi3, long", "phi3", kv_heads=4, more=_long_rope, outside=_PHI3_FACTORS),
        Shape("phi3, short", "phi3", kv_heads=4, more=_long_rope_not_reached, outside=_PHI3_FACTORS),
    )
}
"""By what is special about them."""
