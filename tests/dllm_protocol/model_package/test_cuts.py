"""Cuts of models by bytes: embedding and output weigh with the first and the last layer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.model_manifest import Piece, piece_order
from dllm_protocol.model_package.cuts import even_cuts, layer_sizes
from dllm_protocol.model_package.errors import LayersRefused
from dllm_protocol.ranked_book import least_slice
from tests.local_worker.test_settlement import MANIFEST

SIZES = {(2, 0): 5, (3, 0): 100, (5, 0): 70}


def test_what_stands_beside_the_blocks_weighs_where_it_is_needed() -> None:
    pieces = tuple(Piece(*key, SIZES.get(key, 10 + key[1]), b"\1" * 32) for key in piece_order(3))
    manifest = replace(MANIFEST, layers=3, pieces=pieces)
    assert layer_sizes(manifest, is_tied=False) == [110, 11, 82]
    assert layer_sizes(manifest, is_tied=True) == [110, 11, 182]
    with pytest.raises(LayersRefused, match="is not a model in pieces"):
        layer_sizes(MANIFEST, is_tied=False)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 4))
def test_no_other_cut_is_more_even(sizes: list[int], count: int) -> None:
    if count > len(sizes):
        with pytest.raises(LayersRefused, match=f"cannot be cut into {count} slices"):
            even_cuts(sizes, count)
        return
    cuts = even_cuts(sizes, count)

    def unevenness(borders: tuple[int, ...]) -> int:
        return sum(sum(sizes[first:end]) ** 2 for first, end in itertools.pairwise(borders))

    every = [(0, *inner, len(sizes)) for inner in itertools.combinations(range(1, len(sizes)), count - 1)]
    assert cuts in every
    assert unevenness(cuts) == min(map(unevenness, every))


@pytest.mark.parametrize(("layers", "count"), [(80, 16), (126, 15), (17, 8), (512, 16), (34, 11)])
def test_slices_are_thick_enough_to_be_offered(layers: int, count: int) -> None:
    cuts = even_cuts([1000] * (layers - 1) + [1], count)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, layers, count + 1)
    assert min(end - first for first, end in itertools.pairwise(cuts)) >= least_slice(layers)


def test_a_heavy_embedding_makes_the_first_slice_short() -> None:
    assert even_cuts([10] * 12, 3) == (0, 4, 8, 12)
    assert even_cuts([40, *[10] * 10, 40], 3) == (0, 3, 9, 12)
