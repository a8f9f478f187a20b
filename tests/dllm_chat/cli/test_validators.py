"""How validators are named; what they do is tested on a real network (tests/e2e/test_validators.py)."""

from __future__ import annotations

import pytest

from dllm_chat.cli.validators import BadValidatorAddress, shown_address, time_text, validator_address
from dllm_protocol.address import address_of

KEY = bytes(range(32))


@pytest.mark.parametrize(
    "text", [KEY.hex(), KEY.hex().upper(), address_of(KEY).hex(), f" {address_of(KEY).hex().upper()}\n"]
)
def test_a_validator_is_named_by_its_key_or_the_keys_address(text: str) -> None:
    assert validator_address(text) == address_of(KEY)
    assert shown_address(validator_address(text)) == address_of(KEY).hex().upper()


@pytest.mark.parametrize(
    "text", ["", "validator", "00" * 19, "00" * 33, "dllm1x36slx9at870e9rd53d2405n80s4ff94a2cs5f"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadValidatorAddress):
        validator_address(text)


def test_times_are_shown_in_utc() -> None:
    assert time_text(1_700_000_000_999) == "2023-11-14 22:13:20 UTC"
