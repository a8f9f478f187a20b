"""Who cannot hold an answer as long as it is by now does not take it over, and is not to blame for that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_protocol.errors import DllmError
from tests.e2e.stages import CONTEXT_ROWS, Stages, stages_of, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

SHORT_ROWS = 256
PROMPT = [1, *(300 + 7 * n % 200 for n in range(SHORT_ROWS - 10))]
COUNT = 24
CUTS = ((0, 4),), ((0, 1), (1, 3), (3, 4))


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


@pytest.mark.parametrize("cuts", CUTS, ids=["one stage", "three stages"])
async def test_a_standby_with_too_short_a_context_is_passed_over_by_name(
    stages: Stages, cuts: tuple[tuple[int, int], ...]
) -> None:
    serving = [await stages.start(*cut) for cut in cuts]
    standby = await stages.start(*cuts[-1], context_rows=SHORT_ROWS)
    route = [(one, None) for one in serving[:-1]]
    asking = stages.client(1, [*route, (serving[-1], standby)])
    found: list[int] = []
    with pytest.raises(DllmError) as failure:
        async for token in asking.tokens(PROMPT, COUNT):
            found.append(token)
            if len(found) == 14:
                await serving[-1].die()
    assert found == (await whole_answer(stages, PROMPT, COUNT))[: len(found)]
    assert f"holds {SHORT_ROWS} rows" in failure.value.message
    assert asking.lineup.saved.failed == (serving[-1].provider,)
    await asking.lineup.close("the test is over")


async def test_a_standby_that_holds_what_there_is_goes_on(stages: Stages) -> None:
    serving = [await stages.start(*cut) for cut in CUTS[1]]
    standby = await stages.start(*CUTS[1][1], context_rows=SHORT_ROWS)
    asking = stages.client(1, [(serving[0], None), (serving[1], standby), (serving[2], None)])
    found: list[int] = []
    async for token in asking.tokens(PROMPT, 8):
        found.append(token)
        if len(found) == 4:
            await serving[1].die()
    assert found == await whole_answer(stages, PROMPT, 8)
    assert asking.changes == [(serving[1].provider, standby.provider)]
    assert CONTEXT_ROWS > len(PROMPT) + 8 > SHORT_ROWS - 4
    await asking.lineup.close("the test is over")
