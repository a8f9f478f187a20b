"""A standby earns its retainer by answering questions that it cannot foresee (`dllm_protocol.probing.questions`).

While nothing stands in the caches of a line, the client asks it a few random tokens, and asks them again with the
standby in its stage's place. The standby's channel stays open: it can take over at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dllm_chat.session.decoder import RowLogits
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.line import Line
from dllm_chat.session.spares import UNREACHED
from dllm_chat.session.stage_leg import StageFailed, StageLeg
from dllm_protocol.probing.questions import QUESTION_LOGITS, Answer, is_due, judge, question
from dllm_protocol.records import RouteStage
from dllm_protocol.session.ledger import DepositUsedUp

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Questioned:
    """What came of the questions before an answer."""

    line: Line
    """The line to answer with; it stands, and holds no rows."""
    fit: dict[bytes, StageLeg]
    """Standbys that answered as the line did, by provider; their channels are open."""
    unfit: frozenset[bytes]
    """Standbys that did not, or not at all."""


async def question_standbys(
    line: Line,
    stages: tuple[RouteStage, ...],
    *,
    secret: bytes,
    rows: int,
    vocab_size: int,
    architecture: str,
    dial: Callable[[bytes], Awaitable[StageLeg]],
    line_of: Callable[[list[StageLeg], list[int]], Awaitable[Line]],
) -> Questioned:
    """Ask every standby whose turn it is.

    Args:
        line: stands, and holds no rows.
        stages: of the session's route.
        secret: of the client's, told to nobody.
        rows: that each stage will serve in this answer, about.
        dial: opens a leg to a standby.
        line_of: links legs up in the forms given.

    Raises:
        LegFailed: a stage of the line itself is of no more use.
        DepositUsedUp
    Standbys' channels are closed then.
    """
    fit: dict[bytes, StageLeg] = {}
    unfit: set[bytes] = set()
    legs, forms = list(line.legs), [leg.form for leg in line.legs]
    ids = question(secret, 0, vocab_size)
    wanted: Answer | None = None
    asked: StageLeg | None = None
    try:
        for index, stage in enumerate(stages):
            standby = stage.standby.provider if stage.standby is not None else b""
            if not standby or standby == legs[index].provider or not is_due(secret, standby, 0, rows):
                continue
            if wanted is None:
                wanted = await _asked(line, ids)
            try:
                asked = await dial(standby)
            except UNREACHED as error:
                _log.info("a standby does not answer: %s", error.message)
                unfit.add(standby)
                continue
            with_it = [*legs[:index], asked, *legs[index + 1 :]]
            if await _agrees(with_it, standby, forms, ids, wanted, architecture, line_of):
                fit[standby] = asked
            else:
                unfit.add(standby)
                await asked.close("the answer was another than the line's")
            asked = None
            line = await line_of(legs, forms)
    except BaseException:
        left = [*fit.values(), *([asked] if asked is not None else ())]
        await asyncio.gather(*(leg.close("the questions ended early") for leg in left))
        raise
    return Questioned(line, fit, frozenset(unfit))


async def _agrees(
    legs: list[StageLeg],
    standby: bytes,
    forms: list[int],
    ids: list[int],
    wanted: Answer,
    architecture: str,
    line_of: Callable[[list[StageLeg], list[int]], Awaitable[Line]],
) -> bool:
    """Whether the line with the standby in it says what the line says.

    Raises:
        LegFailed: another stage of the line is of no more use; the standby is not to blame for that.
        DepositUsedUp
    """
    try:
        got = await _asked(await line_of(legs, forms), ids)
    except DepositUsedUp:
        raise
    except LegFailed as failure:
        about = {failure.provider}
        if isinstance(failure, StageFailed):
            about |= {failure.accuser, failure.behind}
        if standby not in about:
            raise
        _log.info("a standby gave no answer: %s", failure.message)
        return False
    found = judge(wanted, got, architecture)
    if not found.agrees:
        _log.warning(
            "a standby and the stage that it stands by compute different things: %s", found.comparison
        )
    return found.agrees


async def _asked(line: Line, ids: list[int]) -> Answer:
    """The logits behind each of a question's rows; afterwards nothing of it is held to count."""
    rows: list[RowLogits] = await line.question(ids, min(QUESTION_LOGITS, line.top_k))
    return tuple((row.ids, row.logits) for row in rows)
