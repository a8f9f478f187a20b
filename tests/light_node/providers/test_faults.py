"""Whose fault an error is decides who is asked next."""

from __future__ import annotations

import pytest

from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.errors import DllmError
from dllm_protocol.ics23 import ProofInvalid
from dllm_protocol.offer_book import BookRefused
from dllm_protocol.verification.predicates import Rule
from light_node.errors import (
    AnswerRefused,
    HeaderRefused,
    HeightUnavailable,
    RootExpired,
    RootMismatch,
    SourceMalformed,
    SourceRefusal,
    SourceTimedOut,
    SourceUnreachable,
    TrustStoreFailed,
)
from light_node.providers.faults import Fault, fault_of


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (SourceUnreachable("x"), Fault.SILENT),
        (SourceTimedOut("x"), Fault.SILENT),
        (SourceRefusal("x"), Fault.SILENT),
        (HeightUnavailable("x"), Fault.SILENT),
        (SourceMalformed("x"), Fault.LIE),
        (AnswerRefused("x"), Fault.LIE),
        (ProofInvalid("x"), Fault.LIE),
        (BookRefused("x"), Fault.LIE),
        (InvalidBlock("x"), Fault.LIE),
        (HeaderRefused("x", height=3, rule=Rule.TWO_THIRDS_SIGNED), Fault.LIE),
        (HeaderRefused("x", height=3, rule=Rule.TIME_NOT_IN_FUTURE), Fault.NOT_THEIRS),
        (HeaderRefused("too far"), Fault.NOT_THEIRS),
        (RootExpired("x"), Fault.NOT_THEIRS),
        (RootMismatch("x"), Fault.NOT_THEIRS),
        (TrustStoreFailed("x"), Fault.NOT_THEIRS),
    ],
)
def test_the_fault_of_each_error(error: DllmError, fault: Fault) -> None:
    assert fault_of(error) is fault
