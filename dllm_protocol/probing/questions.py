"""A client's own probes of a standby: questions that nobody can foresee, whose answers must be the line's.

A *question* is a few random tokens. The client asks it of the line that serves, while nothing stands in its caches,
and keeps the logits; later, or at once, it asks it again with a standby in a stage's place. What comes out must be as
near as two honest machines are. The rows are decoded and paid for as any others, so a standby earns by answering, and
by nothing else that it could merely claim.

All of it follows from a secret of the client's, so that it can be replayed and needs no chance here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.messages import OUTPUTS_ALL, ROW_PROMPT, Output, unpack_floats, unpack_ids
from dllm_protocol.pricing import PPM, RowCounts, RowPrices, cost_of_rows
from dllm_protocol.probing.closeness import (
    DENSE_LOGITS,
    ROUTED_LOGITS,
    Comparison,
    Tolerance,
    compare_logits,
)
from dllm_protocol.session.rows import charged

QUESTION_ROWS: Final = 8
"""Tokens of a question; it is asked with `ROW_PROMPT` and `OUTPUTS_ALL`, so each counts as a kept row."""
QUESTION_LOGITS: Final = 64
"""Logits that are asked for of each row."""
RETAINER_PPM: Final = 20_000
"""Rows of a standby's questions for each million rows that its stage serves: a fiftieth."""
NEVER_ROUTED: Final = frozenset({"gemma2", "gemma3", "phi3", "qwen2", "qwen3"})
"""Architectures whose models have no experts. Of the others a client does not know, so an honest standby is given the
room that experts need. What somebody makes up who has not the weights differs by the whole spread of the logits."""

Answer = tuple[tuple[Sequence[int], Sequence[float]], ...]
"""Of each row the tokens with the largest logits, and these."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a standby's answer is worth."""

    agrees: bool
    """Whether it is as near to the line's as honest machines are. Where not, one of the two computes wrongly."""
    comparison: Comparison


def question(secret: bytes, number: int, vocab_size: int) -> list[int]:
    """The token ids of a question, all below ``vocab_size``.

    Args:
        secret: 32 random bytes of the session's client; told to nobody.
        number: counts the session's questions; one that was asked of a standby is not asked of it again.
    """
    return [
        int.from_bytes(tagged_hash(Tag.PROBE_QUESTION, secret, _u32(number), _u32(row)), "big") % vocab_size
        for row in range(QUESTION_ROWS)
    ]


def is_due(secret: bytes, standby: bytes, window: int, window_rows: int) -> bool:
    """Whether a standby is asked a question in a window of the session, so that `RETAINER_PPM` is kept on average.

    Args:
        standby: its provider id; each standby has draws of its own.
        window: counts the session's windows.
        window_rows: rows that the stage serves in this window.
    """
    drawn = int.from_bytes(tagged_hash(Tag.PROBE_TURN, secret, standby, _u32(window)), "big")
    # Below, with a chance of window_rows · RETAINER_PPM / (QUESTION_ROWS · 10⁶); large windows have it for certain.
    return drawn * QUESTION_ROWS * PPM < (window_rows * RETAINER_PPM) << 256


def question_rows() -> RowCounts:
    """How a question counts on every leg that decodes it."""
    return charged(ROW_PROMPT, QUESTION_ROWS, OUTPUTS_ALL)


def question_cost(prices: RowPrices) -> int:
    """What a question costs on a leg, in udllm; beside other rows less than that, since a leg is rounded up once."""
    return cost_of_rows(prices, question_rows())


def answer_of(outputs: Sequence[Output]) -> Answer:
    """The outputs of a question's rows, in their order.

    Raises:
        MalformedBytes: other rows than the question's, or rows without logits.
    """
    if [one.position for one in outputs] != list(range(QUESTION_ROWS)):
        raise MalformedBytes(f"a question has the rows 0 to {QUESTION_ROWS - 1}, {len(outputs)} others came")
    answer = tuple((unpack_ids(one.ids), unpack_floats(one.logits)) for one in outputs)
    if any(len(ids) != len(logits) or not ids for ids, logits in answer):
        raise MalformedBytes("a row of an answer has no logits, or not one for each token")
    return answer


def tolerance_for(architecture: str) -> Tolerance:
    """What honest answers of such models may differ by; ``architecture`` as the manifest has it."""
    return DENSE_LOGITS if architecture in NEVER_ROUTED else ROUTED_LOGITS


def judge(wanted: Answer, got: Answer, architecture: str) -> Judgement:
    """Hold a standby's answer against the line's.

    Raises:
        ValueError: they are not of the same number of rows, see `answer_of`.
    """
    compared = compare_logits(wanted, got)
    return Judgement(compared.first_beyond(tolerance_for(architecture)) is None, compared)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")
