"""Flags of several slices: one for all, or one for each."""

from __future__ import annotations

import pytest

from dllm_protocol.errors import UsageRefused
from dllm_protocol.pricing import RowPrices
from local_worker.slice_flags import slices_of

ANY = ("127.0.0.1:0",)


def test_without_layers_there_is_one_slice_of_everything() -> None:
    (one,) = slices_of((), ANY, ("wss://a", "wss://b"), (), 5)
    assert (one.layers, one.host, one.port, one.announced) == ("", "127.0.0.1", 0, ("wss://a", "wss://b"))
    assert (one.offer.prices, one.offer.capacity_sessions) == (None, 5)


def test_one_for_all_or_one_for_each() -> None:
    first, second = slices_of(("0:8", "16:24"), ("[::1]:7000",), ("ws://a:1", "ws://b:2"), ("1,2,3,4",), 16)
    assert [(one.layers, one.host, one.port) for one in (first, second)] == [
        ("0:8", "::1", 7000),
        ("16:24", "::1", 7001),
    ]
    assert (first.announced, second.announced) == (("ws://a:1",), ("ws://b:2",))
    assert first.offer.prices == second.offer.prices == RowPrices(1, 2, 3, 4)
    first, second = slices_of(("0:8", "8:"), ("h:5", "g:9"), (), ("1,1,1,1", "2,2,2,2"), 16)
    assert [(one.host, one.port, one.announced) for one in (first, second)] == [("h", 5, ()), ("g", 9, ())]
    assert [one.offer.prices for one in (first, second)] == [
        RowPrices(1, 1, 1, 1),
        RowPrices(2, 2, 2, 2),
    ]
    assert [one.port for one in slices_of(("0:1", "1:2"), ANY, (), (), 1)] == [0, 0]


@pytest.mark.parametrize(
    ("layers", "listen", "announce", "prices", "said"),
    [
        (["8"], ANY, (), (), "'8' is no range of layers"),
        (["0:1"] * 17, ANY, (), (), "a worker has at most 16 slices"),
        (["0:1", "1:2"], ANY, ("ws://a",), (), "--announce was given 1 times for 2 slices"),
        (["0:1", "1:2", "2:3"], ("h:1", "h:2"), (), (), "--listen was given 2 times for 3 slices"),
        (["0:1", "1:2"], ("h:65535",), (), (), "--listen is port 65535"),
        ([], ("h:1", "h:2"), (), (), "--listen was given 2 times for 1 slices"),
        ([], ("nowhere",), (), (), "is not host:port"),
        ([], ANY, (), ("1,2,3",), "is not four prices"),
        (["0:1"], ANY, (), ("1,1,1,1", "2,2,2,2"), "--prices was given 2 times for 1 slices"),
    ],
)
def test_flags_that_do_not_fit_are_named(
    layers: list[str], listen: tuple[str, ...], announce: tuple[str, ...], prices: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageRefused, match=said):
        slices_of(layers, listen, announce, prices, 16)


def test_layers_that_the_network_chooses_stand_alone() -> None:
    (one,) = slices_of(("auto",), ANY, (), (), 16, most_layers=12)
    assert (one.layers, one.most_layers) == ("auto", 12)
    with pytest.raises(UsageRefused, match="--layers auto stands alone"):
        slices_of(("auto", "0:4"), ANY, (), (), 16)
    with pytest.raises(UsageRefused, match="--most-layers is for --layers auto"):
        slices_of(("0:4",), ANY, (), (), 16, most_layers=12)
