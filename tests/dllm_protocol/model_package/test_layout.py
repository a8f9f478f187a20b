"""Into which pieces a model is cut, and which models are none that can be."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from dllm_protocol.gguf.head import Tensor, Value, encode_head, text, truth, truths, u32
from dllm_protocol.gguf.kinds import ARRAY, F32, UINT32
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_HEADER, PIECE_OUTPUT, piece_order
from dllm_protocol.model_package.errors import ArchitectureRefused, ModelShapeRefused, PieceRefused
from dllm_protocol.model_package.layout import check_piece, examine, piece_of, plan_pieces
from tests.fuzz.models import LAYERS, N_EMBD, ROWS, small_model


def numbers(*values: int) -> Value:
    return Value(ARRAY, struct.pack(f"<IQ{len(values)}I", UINT32, len(values), *values))


def test_a_model_is_what_its_head_says() -> None:
    model = examine(*small_model())
    assert (model.architecture.name, model.layers, model.n_embd) == ("gemma3", LAYERS, N_EMBD)
    assert (model.vocab_size, model.context_rows, model.is_tied) == (ROWS, 64, True)
    metadata, tensors = small_model()
    tensors.append(Tensor("output.weight", (N_EMBD, ROWS), F32))
    assert not examine(metadata, tensors).is_tied


def test_pieces_stand_in_the_order_that_the_registry_wants() -> None:
    assert piece_order(2) == [
        (PIECE_HEADER, 0),
        (PIECE_EMBEDDING, 0),
        (PIECE_BLOCK, 0),
        (PIECE_BLOCK, 1),
        (PIECE_OUTPUT, 0),
    ]
    metadata, tensors = small_model()
    plans = plan_pieces(examine(metadata, tensors), metadata, tensors)
    assert [(one.kind, one.index) for one in plans] == piece_order(LAYERS)
    assert [[tensor.name for tensor in one.head.tensors] for one in plans] == [
        [],
        ["token_embd.weight"],
        *([f"blk.{layer}.attn_norm.weight"] for layer in range(LAYERS)),
        ["output_norm.weight"],
    ]
    for one in plans:
        check_piece(one.head, one.raw_head, one.kind, one.index)


def test_pieces_do_not_depend_on_the_order_in_the_file() -> None:
    metadata, tensors = small_model()
    model = examine(metadata, tensors)
    turned = dict(reversed(metadata.items())) | {
        "general.alignment": u32(64), "split.count": u32(3), "split.no": u32(0)
    }  # fmt: skip
    one = plan_pieces(model, metadata, tensors)
    other = plan_pieces(model, turned, list(reversed(tensors)))
    assert [plan.raw_head for plan in one] == [plan.raw_head for plan in other]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blk.0.ffn_up.weight", (PIECE_BLOCK, 0)),
        ("blk.511.attn_q.bias", (PIECE_BLOCK, 511)),
        ("token_embd.weight", (PIECE_EMBEDDING, 0)),
        ("output.weight", (PIECE_OUTPUT, 0)),
        ("output_norm.weight", (PIECE_OUTPUT, 0)),
        ("rope_freqs.weight", (PIECE_HEADER, 0)),
        ("blk.01.ffn_up.weight", (PIECE_HEADER, 0)),
        ("blk.-1.ffn_up.weight", (PIECE_HEADER, 0)),
    ],
)
def test_each_tensor_has_its_place(name: str, place: tuple[int, int]) -> None:
    assert piece_of(name) == place


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"general.architecture": None}, ModelShapeRefused, "does not say general.architecture"),
        ({"general.architecture": text("mamba")}, ArchitectureRefused, "'mamba' cannot be cut .* recurrent"),
        ({"general.architecture": text("llama4")}, ArchitectureRefused, "'llama4' cannot be cut .* rotary"),
        ({"general.architecture": text("newest")}, ArchitectureRefused, "'newest' cannot be cut .* nobody has proven"),
        ({"gemma3.block_count": None}, ModelShapeRefused, "gemma3.block_count as one number"),
        ({"gemma3.block_count": u32(0)}, ModelShapeRefused, "block_count is 0"),
        ({"gemma3.block_count": u32(513)}, ModelShapeRefused, "block_count is 513"),
        ({"gemma3.block_count": u32(2)}, ModelShapeRefused, "head_count_kv has 3 values, the model 2 blocks"),
        ({"gemma3.block_count": u32(62)}, ArchitectureRefused, r"62 blocks \(27B\)"),
        ({"gemma3.embedding_length": u32(7)}, ModelShapeRefused, r"token_embd.weight has shape \(8, 4\).* \(7, 4\)"),
        ({"gemma3.context_length": numbers(1, 2)}, ModelShapeRefused, "context_length as one number"),
        ({"gemma3.attention.causal": truth(False)}, ArchitectureRefused, "looks ahead"),
        ({"gemma3.pooling_type": u32(1)}, ArchitectureRefused, "makes embeddings"),
        ({"gemma3.nextn_predict_layers": u32(1)}, ArchitectureRefused, "further tokens"),
        ({"gemma3.attention.recurrent_layers": truths([True] * 3)}, ArchitectureRefused, "recurrent state"),
        ({"gemma3.something.new": numbers(1, 2, 3)}, ModelShapeRefused, "something.new seems to have a value a block"),
        ({"gemma3.feed_forward_length": truths([True])}, ModelShapeRefused, "has 1 values"),
        ({"tokenizer.ggml.tokens": None}, ModelShapeRefused, "no vocabulary"),
        ({"tokenizer.ggml.tokens": numbers(1, 2, 3)}, ModelShapeRefused, r"\(8, 4\), .* \(8, 3\)"),
        ({"dllm.chunk.first_layer": u32(1)}, ModelShapeRefused, "a part of a model already"),
        ({"dllm.piece.kind": text("block")}, ModelShapeRefused, "a part of a model already"),
    ],
)  # fmt: skip
def test_metadata_that_stand_against_it(change: dict[str, Any], error: type[Exception], words: str) -> None:
    metadata, tensors = small_model()
    metadata = {key: value for key, value in (metadata | change).items() if value is not None}
    with pytest.raises(error, match=words):
        examine(metadata, tensors)


@pytest.mark.parametrize(
    ("gone", "added", "words"),
    [
        ("token_embd.weight", (), "has no token_embd"),
        ("output_norm.weight", (), "has no output_norm"),
        ("output_norm.weight", (Tensor("output_norm.weight", (9,), F32),), r"output_norm.weight has shape \(9,\)"),
        ("", (Tensor("output.weight", (N_EMBD, 5), F32),), r"output.weight has shape \(8, 5\), \(8, 4\) fits"),
        ("", (Tensor("cls.weight", (N_EMBD,), F32),), "cls.weight has no place in a gemma3 model"),
        ("", (Tensor("blk.3.attn_norm.weight", (N_EMBD,), F32),), "behind the last of 3 blocks"),
        ("", (Tensor("blk.1.new.weight", (N_EMBD,), F32),), "blocks 0 and 1 differ: only one of them has new.weight"),
        ("blk.1.attn_norm.weight", (), "blocks 0 and 1 differ: only one of them has attn_norm.weight"),
        ("blk.0.attn_norm.weight", (), "attn_norm.weight has shape None"),
    ],
)  # fmt: skip
def test_tensors_that_stand_against_it(gone: str, added: tuple[Tensor, ...], words: str) -> None:
    metadata, tensors = small_model()
    with pytest.raises(ModelShapeRefused, match=words):
        examine(metadata, [one for one in tensors if one.name != gone] + list(added))


def test_blocks_of_unequal_shapes() -> None:
    metadata, tensors = small_model()
    tensors += [Tensor(f"blk.{layer}.ffn_up.weight", (N_EMBD, 4 + layer), F32) for layer in range(LAYERS)]
    assert examine(metadata, tensors).layers == LAYERS  # its metadata say heads block by block
    del metadata["gemma3.attention.head_count_kv"]
    with pytest.raises(ModelShapeRefused, match=r"blk.1.ffn_up.weight has shape \(8, 5\), that of block 0"):
        examine(metadata, tensors)


def test_a_matrix_of_its_own_where_the_architecture_has_none() -> None:
    metadata, tensors = small_model()
    metadata = {key.replace("gemma3", "gemma2"): value for key, value in metadata.items()}
    metadata["general.architecture"] = text("gemma2")
    assert examine(metadata, tensors).is_tied
    with pytest.raises(ModelShapeRefused, match=r"gemma2 models have no output\.weight of their own"):
        examine(metadata, [*tensors, Tensor("output.weight", (N_EMBD, ROWS), F32)])


def test_no_matrix_of_its_own_where_the_architecture_needs_one() -> None:
    metadata, tensors = small_model()
    metadata = {key.replace("gemma3", "gpt-oss"): value for key, value in metadata.items()}
    metadata["general.architecture"] = text("gpt-oss")
    with pytest.raises(
        ModelShapeRefused, match=r"the model has no output\.weight, which gpt-oss models need"
    ):
        examine(metadata, tensors)


def test_a_piece_is_taken_for_no_other() -> None:
    metadata, tensors = small_model()
    plans = plan_pieces(examine(metadata, tensors), metadata, tensors)
    block = plans[3]
    with pytest.raises(PieceRefused, match="says that it is 'block', the manifest says 'output'"):
        check_piece(block.head, block.raw_head, PIECE_OUTPUT, 0)
    with pytest.raises(PieceRefused, match=r"blk\.1\.attn_norm\.weight does not belong in piece block 2"):
        check_piece(block.head, block.raw_head, PIECE_BLOCK, 2)
    with pytest.raises(PieceRefused, match="says that it is 'nothing'"):
        check_piece(replace(block.head, metadata={}), block.raw_head, PIECE_BLOCK, 1)
    for change in ({"a.key": u32(1)}, {"dllm.piece.layer": u32(0)}):
        other = replace(block.head, metadata=dict(block.head.metadata) | change)
        with pytest.raises(PieceRefused, match=r"other keys than|another layer's"):
            check_piece(other, encode_head(other.metadata, other.tensors)[0], PIECE_BLOCK, 1)
    header = plans[0]
    raw, with_more = encode_head(header.head.metadata, [Tensor("cls.weight", (4,), F32)])
    with pytest.raises(PieceRefused, match=r"tensor cls\.weight does not belong in piece header"):
        check_piece(with_more, raw, PIECE_HEADER, 0)
    for key in ("general.alignment", "split.count"):
        other = replace(header.head, metadata=dict(header.head.metadata) | {key: u32(32)})
        with pytest.raises(PieceRefused, match=f"header has {key}, which no piece has"):
            check_piece(other, encode_head(other.metadata, other.tensors)[0], PIECE_HEADER, 0)
    with pytest.raises(PieceRefused, match="canonical"):
        check_piece(block.head, block.raw_head[:-1] + b"\x01", PIECE_BLOCK, 1)
