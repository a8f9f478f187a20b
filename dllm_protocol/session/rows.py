"""How the rows of a request count [format].

A request names the kind of its rows, but a kind is only a word: what costs is what is given. A row whose logits are
delivered is one that a token can be sampled from, so it counts as *kept* even where the request calls it prompt or
replayed. Else a client could call every token prompt and pay the cheapest price for all. For the same reason the first
row of a *drafted* request counts as kept: it is the token that the client sampled, the others are guesses behind it.
"""

from __future__ import annotations

from dllm_protocol.messages import OUTPUTS_ALL, OUTPUTS_LAST, OUTPUTS_NONE, ROW_DRAFTED, ROW_KEPT, ROW_PROMPT
from dllm_protocol.pricing import RowCounts


def charged(kind: int, rows: int, outputs: int) -> RowCounts:
    """How ``rows`` rows of a request count.

    Args:
        kind: a ROW_ constant.
        outputs: whose logits are delivered, an OUTPUTS_ constant.
    """
    if kind == ROW_KEPT:
        return RowCounts(0, rows, 0, 0)
    if kind == ROW_DRAFTED:
        kept = min(1, rows)
        return RowCounts(0, kept, rows - kept, 0)
    kept = {OUTPUTS_LAST: min(1, rows), OUTPUTS_ALL: rows}.get(outputs, 0)
    plain = rows - kept
    return RowCounts(plain, kept, 0, 0) if kind == ROW_PROMPT else RowCounts(0, kept, 0, plain)


def charged_in_part(kind: int, rows: int, outputs: int, decoded_rows: int) -> RowCounts:
    """How a request counts of which only the first ``decoded_rows`` rows were decoded."""
    if decoded_rows < rows and outputs == OUTPUTS_LAST:
        outputs = OUTPUTS_NONE  # the row whose logits were wanted is not among them
    return charged(kind, decoded_rows, outputs)
