"""A whole session, byte for byte, against the recorded one."""

from __future__ import annotations

import json

import pytest

from tests.vectors.record_session import VECTORS, record

pytestmark = pytest.mark.conformance("own-golden-vectors")


def test_a_session_from_fixed_seeds_gives_the_recorded_bytes() -> None:
    assert record() == json.loads(VECTORS.read_text())
