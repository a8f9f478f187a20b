"""Llama-architecture GGUF files with random weights: real to llama.cpp in shape, tokenizer and cost, not in wit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase, printable
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

CONTROL_PIECES = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
FIRST_BYTE_TOKEN = 1 + len(CONTROL_PIECES)
CONTEXT_ROWS = 4096
_SPACE = "▁"  # SentencePiece's visible space
_QUANTISATIONS = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}


def make_random_llama(
    path: Path,
    *,
    layers: int,
    n_embd: int,
    n_ff: int,
    heads: int,
    kv_heads: int,
    vocab_size: int,
    quantisation: str = "Q8_0",
    seed: int = 0,
) -> Path:
    """Write a model whose every matrix is Gaussian noise of a trained model's scale, and return ``path``.

    The tokenizer is SentencePiece's ("llama") with all 256 byte tokens, so that any text can be said, and with
    ChatML's two control tokens. ``vocab_size`` is at least 512. The same arguments give the same bytes.
    """
    if vocab_size < 512:
        raise ValueError(f"a vocabulary of {vocab_size} is too small for bytes and letters: take 512 or more")
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(str(partial), "llama")
    writer.add_name(f"random llama, seed {seed}")
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT_ROWS)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(n_embd // heads)
    writer.add_vocab_size(vocab_size)
    add_tokenizer(writer, vocab_size)
    kind = _QUANTISATIONS[quantisation]
    shapes = _matrices(layers, n_embd, n_ff, n_embd * kv_heads // heads, vocab_size)
    for name, tensor in _tensors(shapes, n_embd, layers, seed):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
    return path


def cached_random_llama(**shape: Any) -> Path:
    """``make_random_llama`` once per shape and machine, kept in a folder of this user's own in the temp directory."""
    folder = Path(tempfile.gettempdir()) / f"dllm-benchmark-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    name = "-".join(f"{key}{value}" for key, value in sorted(shape.items()))
    path = folder / f"{name}.gguf"
    return path if path.exists() else make_random_llama(path, **shape)


def hundred_million() -> Path:
    """The benchmarks' model: 134 million parameters, Q8_0, vocabulary of 32,000."""
    return cached_random_llama(
        layers=12, n_embd=768, n_ff=2048, heads=12, kv_heads=12, vocab_size=32000, quantisation="Q8_0", seed=1
    )


def eleven_hundred_million() -> Path:
    """The larger one, in the shape of TinyLlama: 1.1 billion parameters, Q8_0, vocabulary of 32,000."""
    return cached_random_llama(
        layers=22,
        n_embd=2048,
        n_ff=5632,
        heads=32,
        kv_heads=4,
        vocab_size=32000,
        quantisation="Q8_0",
        seed=1,
    )


def _matrices(
    layers: int, n_embd: int, n_ff: int, n_kv: int, vocab_size: int
) -> Iterator[tuple[str, int, int]]:
    yield "token_embd.weight", vocab_size, n_embd
    yield "output.weight", vocab_size, n_embd
    for layer in range(layers):
        for name, rows, columns in (
            ("attn_q", n_embd, n_embd),
            ("attn_k", n_kv, n_embd),
            ("attn_v", n_kv, n_embd),
            ("attn_output", n_embd, n_embd),
            ("ffn_gate", n_ff, n_embd),
            ("ffn_up", n_ff, n_embd),
            ("ffn_down", n_embd, n_ff),
        ):
            yield f"blk.{layer}.{name}.weight", rows, columns


def _tensors(
    shapes: Iterator[tuple[str, int, int]], n_embd: int, layers: int, seed: int
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    chance = np.random.default_rng(seed)
    for name, rows, columns in shapes:
        # Unit variance out of every product keeps logits spread out, so that greedy choices have clear gaps.
        scale = np.float32(1.0 if name.startswith("token_embd") else columns**-0.5)
        yield name, chance.standard_normal((rows, columns), dtype=np.float32) * scale
    ones = np.ones(n_embd, dtype=np.float32)
    yield "output_norm.weight", ones
    for layer in range(layers):
        yield f"blk.{layer}.attn_norm.weight", ones
        yield f"blk.{layer}.ffn_norm.weight", ones


def add_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """SentencePiece's, with all bytes, control tokens of ChatML, and words of a few letters; 512 tokens or more."""
    pieces = ["<unk>", *CONTROL_PIECES, *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * len(CONTROL_PIECES)
    kinds += [gguf.TokenType.BYTE] * 256
    for word in _words():
        if len(pieces) == vocab_size:
            break
        pieces.append(word)
        kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(index) for index in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(pieces.index("<s>"))
    writer.add_eos_token_id(pieces.index("</s>"))
    writer.add_eot_token_id(pieces.index("<|im_end|>"))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)


def _words() -> Iterator[str]:
    """Pieces by length, so that every merge that SentencePiece tries has its two halves in the vocabulary."""
    yield _SPACE
    yield from (letter for letter in printable if not letter.isspace())
    for length in (1, 2, 3, 4):
        for letters in product(ascii_lowercase, repeat=length):
            word = "".join(letters)
            yield _SPACE + word
            if length > 1:
                yield word
