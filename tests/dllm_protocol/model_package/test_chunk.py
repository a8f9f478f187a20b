"""What a chunk's file is made of; that it computes the same is proven beside llama.cpp."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from dllm_protocol.gguf.head import Head, Tensor, Value, text, truth, u32
from dllm_protocol.gguf.kinds import F32, FLOAT32
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_HEADER, PIECE_OUTPUT
from dllm_protocol.model_package.architectures import ARCHITECTURES, REFUSED, architecture_named, windows
from dllm_protocol.model_package.chunk import ChunkPlan, PieceKey, pieces_of_chunk, plan_chunk
from dllm_protocol.model_package.errors import ArchitectureRefused, LayersRefused, PieceRefused
from dllm_protocol.model_package.layout import TIED_KEY, examine, plan_pieces
from tests.dllm_protocol.model_package.test_layout import numbers
from tests.fuzz.models import LAYERS, ROWS, small_model

Heads = dict[PieceKey, Head]


def heads_of(changes: dict[str, Value] | None = None, architecture: str = "gemma3") -> Heads:
    metadata, tensors = small_model()
    metadata = {key.replace("gemma3", architecture): value for key, value in metadata.items()}
    metadata |= {"general.architecture": text(architecture)} | (changes or {})
    plans = plan_pieces(examine(metadata, tensors), metadata, tensors)
    return {(one.kind, one.index): one.head for one in plans}


def read(plan: ChunkPlan) -> Head:
    source = memoryview(plan.raw_head)
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return bytes(source[at - count : at])

    return read_head(take, plan.size_bytes)


def test_which_pieces_a_chunk_is_made_of() -> None:
    header, embedding, output = (PIECE_HEADER, 0), (PIECE_EMBEDDING, 0), (PIECE_OUTPUT, 0)
    blocks = [(PIECE_BLOCK, layer) for layer in range(4)]
    for tied in (True, False):
        assert pieces_of_chunk(4, 0, 2, is_tied=tied) == [header, embedding, *blocks[:2]]
        assert pieces_of_chunk(4, 1, 3, is_tied=tied) == [header, *blocks[1:3]]
        assert pieces_of_chunk(4, 0, 4, is_tied=tied) == [header, embedding, *blocks, output]
    assert pieces_of_chunk(4, 2, 4, is_tied=True) == [header, embedding, *blocks[2:], output]
    assert pieces_of_chunk(4, 2, 4, is_tied=False) == [header, *blocks[2:], output]
    with pytest.raises(LayersRefused):
        pieces_of_chunk(4, 2, 2, is_tied=True)


@pytest.mark.parametrize(
    ("architecture", "period", "expected"),
    [
        ("gemma2", None, [True, False, True, False, True, False, True, False]),
        ("gemma3", None, [True] * 5 + [False] + [True] * 2),
        ("gemma3", u32(4), [True, True, True, False] * 2),
        ("gemma3", u32(1), [False] * 8),
        ("gemma3", u32(0), [True] * 8),
        ("gemma3", numbers(1, 0, 0, 1, 1, 0, 1, 0), [True, False, False, True, True, False, True, False]),
    ],
)
def test_windows_are_those_of_the_whole_model(
    architecture: str, period: Value | None, expected: list[bool]
) -> None:
    metadata = {f"{architecture}.attention.sliding_window": u32(16)}
    if period is not None:
        metadata[f"{architecture}.attention.sliding_window_pattern"] = period
    assert windows(ARCHITECTURES[architecture], metadata, 8) == tuple(expected)


def test_models_without_windows_get_none() -> None:
    assert windows(ARCHITECTURES["llama"], {"llama.attention.sliding_window": u32(16)}, 4) is None
    assert windows(ARCHITECTURES["phi3"], {"phi3.attention.sliding_window": u32(16)}, 4) is None
    assert windows(ARCHITECTURES["gemma3"], {}, 4) is None
    assert windows(ARCHITECTURES["gemma3"], {"gemma3.attention.sliding_window": u32(0)}, 4) is None
    assert windows(ARCHITECTURES["gemma2"], {}, 2) == (True, False)


def test_what_has_a_value_a_block_is_cut_like_the_blocks() -> None:
    pattern = "gemma3.attention.sliding_window_pattern"
    heads = heads_of({"gemma3.attention.head_count_kv": numbers(4, 2, 1), pattern: numbers(0, 1, 0)})
    found = read(plan_chunk(heads, LAYERS, 1, 3)).metadata
    assert found["gemma3.attention.head_count_kv"].integers("it") == [2, 1]
    assert found[pattern].integers("it") == [1, 0]
    assert found["gemma3.block_count"].integer("it") == 2


def test_a_chunk_without_windows_in_a_model_with_some() -> None:
    """llama.cpp ends its process over an architecture with windows and a model with none."""
    none = {"gemma3.attention.sliding_window_pattern": numbers(1, 0, 1)}
    found = read(plan_chunk(heads_of(none), LAYERS, 1, 2)).metadata
    assert "gemma3.attention.sliding_window" not in found
    assert "gemma3.attention.sliding_window_pattern" not in found
    base = Value(FLOAT32, struct.pack("<f", 5e5))
    other = heads_of({"gemma2.rope.freq_base": base, "gemma2.rope.freq_base_swa": u32(1)}, "gemma2")
    found = read(plan_chunk(other, LAYERS, 1, 2)).metadata
    assert found["gemma2.attention.sliding_window_pattern"].integers("it") == [1]
    assert found["gemma2.attention.sliding_window"].integer("it") == 1 << 30
    assert found["gemma2.rope.freq_base_swa"] == base


def test_what_stands_in_is_small_and_zero() -> None:
    plan = plan_chunk(heads_of(), LAYERS, 1, 2)
    stand_ins = [part for part in plan.parts if part.piece is None]
    assert [part.size_bytes for part in stand_ins] == [8 * 32 * 4, 32]
    shapes = {tensor.name: tensor.shape for tensor in read(plan).tensors}
    assert shapes == {
        "blk.0.attn_norm.weight": (8,),
        "token_embd.weight": (8, 32),
        "output_norm.weight": (8,),
    }
    assert read(plan).metadata["tokenizer.ggml.model"].text("it") == "no_vocab"


def test_what_llama_cpp_insists_on_stands_in_with_few_bits() -> None:
    metadata, _ = small_model()
    metadata = {key.replace("gemma3", "gpt-oss"): value for key, value in metadata.items()}
    metadata |= {"general.architecture": text("gpt-oss"), "gpt-oss.embedding_length": u32(64)}
    tensors = [Tensor(name, (64, ROWS), F32) for name in ("token_embd.weight", "output.weight")]
    tensors += [Tensor(f"blk.{layer}.attn_norm.weight", (64,), F32) for layer in range(LAYERS)]
    tensors.append(Tensor("output_norm.weight", (64,), F32))
    plans = plan_pieces(examine(metadata, tensors), metadata, tensors)
    heads = {(one.kind, one.index): one.head for one in plans}
    for first, end, stand_ins in (
        (0, 1, {"output.weight": (64, ROWS), "output_norm.weight": (64,)}),
        (1, 2, {"output.weight": (64, 32), "token_embd.weight": (64, 32), "output_norm.weight": (64,)}),
        (2, 3, {"token_embd.weight": (64, ROWS)}),
        (0, 3, {}),
    ):
        plan = plan_chunk(heads, LAYERS, first, end)
        made = read(plan).tensors[-len(stand_ins) :] if stand_ins else ()
        assert {tensor.name: tensor.shape for tensor in made} == stand_ins
        assert {tensor.kind_name for tensor in made if len(tensor.shape) == 2} <= {"Q4_0"}
        assert sum(part.piece is None for part in plan.parts) == len(stand_ins)


def test_a_chunk_that_would_be_taken_for_another_model() -> None:
    found = ARCHITECTURES["gemma3"]
    assert found.counts_that_change_it == (62,)
    heads = heads_of()
    changed = replace(heads[PIECE_HEADER, 0], metadata=dict(heads[PIECE_HEADER, 0].metadata))
    metadata = dict(changed.metadata) | {"gemma3.block_count": u32(70)}
    del metadata["gemma3.attention.head_count_kv"]
    heads[PIECE_HEADER, 0] = replace(changed, metadata=metadata)
    with pytest.raises(LayersRefused, match="a chunk of 62 gemma3 blocks would be taken for another model"):
        plan_chunk(heads, 70, 1, 63)


def test_headers_that_lie() -> None:
    heads = heads_of()
    header = heads[PIECE_HEADER, 0]
    for change, error, words in (
        ({"general.architecture": text("mamba")}, ArchitectureRefused, "mamba"),
        ({TIED_KEY: None}, PieceRefused, "does not say dllm.model.tied"),
        ({"gemma3.block_count": u32(2)}, PieceRefused, "block_count"),
        ({"gemma3.pooling_type": u32(2)}, ArchitectureRefused, "embeddings"),
        ({"gemma3.attention.head_count_kv": numbers(1)}, PieceRefused, "has 1 values, the model 3"),
    ):
        metadata = {
            key: value for key, value in (dict(header.metadata) | change).items() if value is not None
        }
        heads[PIECE_HEADER, 0] = replace(header, metadata=metadata)
        with pytest.raises(error, match=words):
            plan_chunk(heads, LAYERS, 0, 1)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_header_that_lies_about_the_output_matrix(is_tied: bool) -> None:
    metadata, tensors = small_model()
    if is_tied:
        tensors.append(Tensor("output.weight", (8, ROWS), F32))
    plans = plan_pieces(examine(metadata, tensors), metadata, tensors)
    heads = {(one.kind, one.index): one.head for one in plans}
    header = heads[PIECE_HEADER, 0]
    heads[PIECE_HEADER, 0] = replace(header, metadata=dict(header.metadata) | {TIED_KEY: truth(is_tied)})
    with pytest.raises(PieceRefused, match=f"dllm.model.tied = {is_tied}, the output piece says otherwise"):
        plan_chunk(heads, LAYERS, 1, LAYERS)
    assert plan_chunk(heads, LAYERS, 0, 1).parts  # the first chunk needs neither


def test_no_architecture_is_both_taken_and_refused() -> None:
    assert not ARCHITECTURES.keys() & REFUSED.keys()
    for name, reason in REFUSED.items():
        with pytest.raises(ArchitectureRefused, match=f"'{name}'") as caught:
            architecture_named(name)
        assert reason in caught.value.message and "llama" in caught.value.hint
