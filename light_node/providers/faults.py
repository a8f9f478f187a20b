"""Whose fault a failed question is, which decides what becomes of the node that was asked."""

from __future__ import annotations

from enum import Enum

from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.errors import DllmError, MalformedBytes, NetworkUnreachable, TimedOut
from dllm_protocol.ics23 import ProofInvalid
from dllm_protocol.offer_book import BookRefused
from dllm_protocol.verification.predicates import Rule
from light_node.errors import AnswerRefused, HeaderRefused

_LIES = (AnswerRefused, BookRefused, InvalidBlock, MalformedBytes, ProofInvalid)


class Fault(Enum):
    """What an error says of the node that was asked."""

    NOT_THEIRS = "not theirs"
    """Trust expired, a clock that is wrong here, too far a way: another node would not help."""
    SILENT = "silent"
    """It did not answer, or does not have it: it may be asked again later."""
    LIE = "lie"
    """It answered with something that cannot be true, or not with an answer: it is asked no more."""


def fault_of(error: DllmError) -> Fault:
    """Judge an error that came of asking a node."""
    if isinstance(error, NetworkUnreachable | TimedOut):
        return Fault.SILENT
    if isinstance(error, HeaderRefused):
        # Without a rule it is we who stopped; a time in the future may be our own clock's doing.
        return Fault.NOT_THEIRS if error.rule in (None, Rule.TIME_NOT_IN_FUTURE) else Fault.LIE
    return Fault.LIE if isinstance(error, _LIES) else Fault.NOT_THEIRS


def is_from_the_future(error: DllmError) -> bool:
    """Whether a header's time lies ahead of our clock: a lie that anybody can tell, or a clock that is wrong."""
    return isinstance(error, HeaderRefused) and error.rule is Rule.TIME_NOT_IN_FUTURE
