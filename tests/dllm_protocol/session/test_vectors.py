"""A whole session, byte for byte, against the recorded one."""

from __future__ import annotations

import json

from tests.vectors.record_session import VECTORS, record


def test_a_session_from_fixed_seeds_gives_the_recorded_bytes() -> None:
    assert record() == json.loads(VECTORS.read_text())
