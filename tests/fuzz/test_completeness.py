"""No decoder is left out of the table."""

from __future__ import annotations

from tests.fuzz.found import NO_DECODERS, decoder_names, decoders_in
from tests.fuzz.table import decoders


def test_every_decoder_is_in_the_table() -> None:
    """A new one gets a row in one of the modules of tests/fuzz, or a reason in `found.NO_DECODERS`."""
    known = {one.name for one in decoders()} | NO_DECODERS.keys()
    assert [name for name in decoder_names() if name not in known] == []


def test_no_reason_is_left_over() -> None:
    found = set(decoder_names())
    assert [name for name in NO_DECODERS if name not in found] == []


def test_names_are_given_once() -> None:
    names = [one.name for one in decoders()]
    assert len(set(names)) == len(names)


def test_a_new_decoder_is_found() -> None:
    source = """
def thing_from_json(value): ...
def _part(value): ...
class Thing:
    @classmethod
    def decode(cls, data): ...
    def encode(self): ...
"""
    assert list(decoders_in(source, "room")) == ["room.thing_from_json", "room.Thing.decode"]
