"""Probes: their tokens, their piece's head, and on which side of a context a chunk stands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.gguf.head import Head, Tensor, encode_head, u32
from dllm_protocol.gguf.kinds import F32, I32
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_PROBE
from dllm_protocol.model_package.errors import ModelShapeRefused, PieceRefused
from dllm_protocol.model_package.layout import check_piece
from dllm_protocol.model_package.probe import (
    LONG,
    PROBE_LOGITS,
    PROBE_ROWS,
    SHORT,
    ProbeShape,
    hidden_name,
    logit_ids_name,
    logits_name,
    plan_probe,
    probe_shape,
    probe_tokens,
    short_context_rows,
    side_of,
)

FACTORS = ("rope_factors_long.weight", "rope_factors_short.weight")
SHAPE = ProbeShape(layers=3, n_embd=8, logits=5, has_sides=False)


@given(st.integers(1, 1 << 31))
def test_tokens_are_in_the_vocabulary_and_always_the_same(vocab_size: int) -> None:
    tokens = probe_tokens(vocab_size)
    assert len(tokens) == PROBE_ROWS and all(0 <= token < vocab_size for token in tokens)
    assert tokens == probe_tokens(vocab_size)


def test_tokens_of_another_vocabulary_are_others() -> None:
    assert len({tuple(probe_tokens(size)) for size in range(10_000, 10_100)}) == 100


@pytest.mark.parametrize("layers", [1, 2, 3, 512])
@pytest.mark.parametrize("has_sides", [False, True])
def test_a_probe_says_how_large_it_is(layers: int, has_sides: bool) -> None:
    shape = ProbeShape(layers, 8 if layers > 1 else 0, PROBE_LOGITS, has_sides)
    plan = plan_probe("llama", shape)
    assert (plan.kind, plan.index) == (PIECE_PROBE, 0)
    check_piece(plan.head, plan.raw_head, PIECE_PROBE, 0)
    assert probe_shape(plan.head) == shape
    assert len(plan.head.tensors) == (layers + 1) * (1 + has_sides)


def with_tensors(tensors: list[Tensor]) -> Head:
    metadata = plan_probe("llama", SHAPE).head.metadata
    return encode_head(metadata, sorted(tensors, key=lambda one: one.name))[1]


def changed(which: str, **change: object) -> Head:
    """A probe of which one tensor is another."""
    tensors = plan_probe("llama", SHAPE).head.tensors
    return with_tensors([replace(one, **change) if one.name == which else one for one in tensors])  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (with_tensors([]), "has 0 tensors"),
        (changed(logits_name(), kind=I32), "has shape .* of I32"),
        (changed(logits_name(), shape=(5, 7)), r"has shape \(5, 7\)"),
        (changed(logits_name(), shape=(65, 8)), "65 logits a row"),
        (changed(logit_ids_name(), kind=F32), "has shape .* of F32"),
        (changed(hidden_name(2), shape=(9, 8)), r"\(8, 8\) of F32 is wanted"),
        (changed(hidden_name(1), shape=(1 << 17, 8)), "hidden states of 131072 numbers"),
        (changed(hidden_name(2), name=hidden_name(3)), "probe.hidden.2 of the probe is missing"),
        (changed(hidden_name(2), name=logits_name(LONG)), "is missing"),
        (
            with_tensors([*plan_probe("llama", SHAPE).head.tensors, Tensor(logits_name(LONG), (5, 8), F32)]),
            "has 5 tensors, one of 1 layers has 4",
        ),
        (
            with_tensors([Tensor(hidden_name(n), (1, 1), F32) for n in range(600)]),
            "has 600 tensors",
        ),
    ],
)
def test_what_is_no_probe_is_refused(head: Head, words: str) -> None:
    with pytest.raises(PieceRefused, match=words):
        probe_shape(head)


def test_a_probe_is_not_taken_for_another_piece_nor_another_for_a_probe() -> None:
    plan = plan_probe("llama", SHAPE)
    with pytest.raises(PieceRefused, match="says that it is 'probe'"):
        check_piece(plan.head, plan.raw_head, PIECE_BLOCK, 0)
    tensors = [*plan.head.tensors, Tensor("blk.0.attn_norm.weight", (8,), F32)]
    raw, head = encode_head(plan.head.metadata, sorted(tensors, key=lambda one: one.name))
    with pytest.raises(PieceRefused, match=r"blk\.0\.attn_norm\.weight does not belong"):
        check_piece(head, raw, PIECE_PROBE, 0)
    raw, head = encode_head(dict(plan.head.metadata) | {"more": u32(1)}, plan.head.tensors)
    with pytest.raises(PieceRefused, match="other keys"):
        check_piece(head, raw, PIECE_PROBE, 0)


def test_a_model_has_sides_where_it_has_factors_for_both() -> None:
    metadata = {"phi3.context_length": u32(131_072)}
    assert short_context_rows("phi3", metadata, FACTORS[:1]) is None
    assert short_context_rows("phi3", metadata, FACTORS) == 131_072
    own = metadata | {"phi3.rope.scaling.original_context_length": u32(4096)}
    assert short_context_rows("phi3", own, ["rope_freqs.weight", *FACTORS]) == 4096
    with pytest.raises(ModelShapeRefused, match="context_length"):
        short_context_rows("phi3", {}, FACTORS)


@pytest.mark.parametrize(
    ("context_rows", "short_rows", "side"),
    [
        (1 << 20, None, SHORT),
        (4096, 4096, SHORT),
        (4097, 4096, LONG),
        (8192, 4096, LONG),
        (1, 64, LONG),  # llama.cpp has no context below 256
        (3841, 4000, LONG),  # and opens 4096 for this one
        (3840, 4000, SHORT),
    ],
)
def test_a_chunk_stands_on_the_side_that_llama_cpp_takes(
    context_rows: int, short_rows: int | None, side: str
) -> None:
    assert side_of(context_rows, short_rows) == side
