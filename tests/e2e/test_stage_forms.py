"""Stages of every kind of model, and links of either kind: nobody's letters change where they are clear.

Letters alone say little of a tiny model that repeats itself, so logits are compared, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.session.decoder import RowLogits
from dllm_chat.session.line import Line
from dllm_protocol.messages import FORM_BF16, FORM_F32
from light_node.channel.link import Link
from local_worker import next_stage
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.next_stage import NextStage
from local_worker.place_in_line import PlaceInLine
from local_worker.place_lanes import PlaceLanes
from tests.e2e.stages import CONTEXT_ROWS, Asking, Stages, Worker, stages_of
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY

PROMPT = [1, *(300 + 7 * n % 200 for n in range(300))]
"""Longer than a slice."""
COUNT = 24
DIES_AT = 10
CUTS = ((0, 1), (1, 3), (3, 4))
ALL_SLOW, ALL_FAST = 1 << 60, 0
"""What a fast link carries in a second at least, in bytes."""
BF16_BOUND = 0.03
"""Most that rounding twice moves a logit of the tiny llama, whose logits spread by about one. A number in bf16 is off
by 2^-9 of itself at most, and such errors hardly add up: measured 0.0108 over 32 tokens; thrice that is allowed."""
F32_BOUND = 0.01
"""Nothing is rounded, and undisturbed answers are equal to the bit. A standby computes in batches what was computed row
by row, so last bits differ behind it, and now and then by a step of f16, which attention computes in. Measured: 0.00043
in one row, where logits go up to 21 (qwen2, tied), and 4e-6 in all others."""


@dataclass
class Seen:
    """In which forms hidden states went, and what came back."""

    forms: set[int] = field(default_factory=set)
    """Over links."""
    link_rows: int = 0
    lanes: list[tuple[bytes, int]] = field(default_factory=list)
    """Where each lane led that was dialled, and its form."""
    rows: dict[int, RowLogits] = field(default_factory=dict)
    """By position, as last heard."""

    def answer(self) -> list[RowLogits]:
        """The rows behind which an answer's tokens were chosen."""
        return [self.rows[len(PROMPT) - 1 + number] for number in range(COUNT)]

    def lane_forms(self, first: Worker) -> list[int]:
        """Forms of the lanes for hidden states; those to the first stage are for tokens only."""
        return [form for provider, form in self.lanes if provider != first.provider]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    noted = Seen()
    send, dial = NextStage.send, PlaceLanes.dial

    async def sending(self: NextStage, request: int, first: int, rows: int, form: int, data: bytes) -> None:
        noted.forms.add(form)
        noted.link_rows += rows
        await send(self, request, first, rows, form, data)

    async def dialling(self: PlaceLanes, to: Any, form: int, *others: Any) -> None:
        noted.lanes.append((to.provider, form))
        await dial(self, to, form, *others)

    def hearing(real: Callable[..., Any]) -> Callable[..., Any]:
        async def heard(*arguments: Any, **named: Any) -> RowLogits:
            row: RowLogits = await real(*arguments, **named)
            noted.rows[row.position] = row
            return row

        return heard

    monkeypatch.setattr(NextStage, "send", sending)
    monkeypatch.setattr(PlaceLanes, "dial", dialling)
    monkeypatch.setattr(Line, "decode", hearing(Line.decode))
    monkeypatch.setattr(Line, "decode_next", hearing(Line.decode_next))
    return noted


@dataclass
class Links:
    """All links between stages, none of which counts as one within a machine."""

    _patch: pytest.MonkeyPatch

    def are(self, form: str) -> None:
        """Whoever measures a link from now on finds it fit for this form."""
        self._patch.setattr(next_stage, "FAST_BYTES_PER_S", ALL_SLOW if form == "bf16" else ALL_FAST)


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Links:
    monkeypatch.setattr(Link, "is_local", False)
    return Links(monkeypatch)


async def whole_rows(stages: Stages, tokens: Sequence[int]) -> list[dict[int, float]]:
    """What the model that is not cut says behind the same tokens: all logits of each row by id, largest first."""
    engine = EngineHost(EngineOptions(stages.model, stages.folder / "whole.log", CONTEXT_ROWS, 1, 1))
    await engine.start()
    try:
        sequence = engine.current().open_sequence()
        rows = await sequence.decode(0, PROMPT, top_k=VOCABULARY, outputs="last")
        for at, token in enumerate(tokens[:-1]):
            rows += await sequence.decode(len(PROMPT) + at, [token], top_k=VOCABULARY, outputs="last")
        return [dict(zip(row.ids.tolist(), row.logits.tolist(), strict=True)) for row in rows]
    finally:
        await engine.close()


def farthest(whole: Sequence[dict[int, float]], rows: Sequence[RowLogits]) -> float:
    """The largest difference of a logit from the whole model's behind the same tokens."""
    return max(
        abs(wanted[token] - logit)
        for wanted, row in zip(whole, rows, strict=True)
        for token, logit in zip(row.ids, row.logits, strict=True)
    )


def require_clear_tokens(whole: Sequence[dict[int, float]], tokens: Sequence[int], bound: float) -> None:
    """Each token is the whole model's likeliest, unless the next one is so near that both may be off by ``bound``."""
    clear = 0
    for number, (logits, token) in enumerate(zip(whole, tokens, strict=True)):
        (likeliest, best), (_, second) = list(logits.items())[:2]
        if best - second > 2 * bound:
            assert token == likeliest, f"token {number}, {best - second:.3g} ahead of any other"
            clear += 1
    assert clear >= COUNT * 2 // 3, "too few tokens say anything"


def require_same(found: Sequence[int], calm: Sequence[int], margins: Sequence[float], bound: float) -> None:
    """An answer is the undisturbed one, up to the first token where that was not clear."""
    pairs = zip(found, calm, strict=True)
    other = next((number for number, (one, another) in enumerate(pairs) if one != another), None)
    if other is not None:
        assert margins[other] <= 2 * bound, f"token {other}, {margins[other]:.3g} ahead of any other"
        assert other >= DIES_AT + 5, "too few tokens say anything"


async def disturbed(asking: Asking, victims: Sequence[Worker], links: Links, then: str) -> list[int]:
    """An answer in the middle of which workers die; links that are measured from then on are of the other kind."""
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == DIES_AT:
            links.are(then)
            for victim in victims:
                await victim.die()
    return found


@pytest.mark.parametrize(
    ("form", "has_lanes"),
    [("bf16", True), ("bf16", False), ("f32", True)],
    ids=["slow", "slow, no lanes", "fast"],
)
async def test_links_of_one_speed_give_the_whole_models_letters_whoever_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: Links, seen: Seen, form: str, has_lanes: bool
) -> None:
    other, number = ("f32", FORM_BF16) if form == "bf16" else ("bf16", FORM_F32)
    bound = BF16_BOUND if form == "bf16" else F32_BOUND
    if not has_lanes:
        monkeypatch.setattr(PlaceInLine, "want_lane", lambda place: None)
    links.are(form)
    async with stages_of(tmp_path, SHAPES["llama"]) as stages:
        first, middle, last = [await stages.start(*cut) for cut in CUTS]
        asking = stages.client(1, [(first, None), (middle, None), (last, None)])
        calm = await asking.answer(PROMPT, COUNT)
        assert [one.form for one in asking.lineup.links] == [form, form]
        assert seen.lane_forms(first) == ([number, number] if has_lanes else [])
        rows = 2 * (len(PROMPT) + COUNT - 1)
        assert seen.link_rows < rows if has_lanes else seen.link_rows == rows
        await asking.leave()
        whole = await whole_rows(stages, calm)
        off = farthest(whole, seen.answer())
        print(f"{form}: logits are off by {off:.3g} at most")
        assert off <= bound
        assert (off > 0) == (form == "bf16"), "what is rounded is another number, and nothing else is"
        require_clear_tokens(whole, calm, bound)

        standby = await stages.start(*CUTS[1])
        again = stages.client(2, [(first, None), (middle, standby), (last, None)])
        found = await disturbed(again, [middle], links, then=other)
        assert again.changes == [(middle.provider, standby.provider)]
        assert [one.form for one in again.lineup.links] == [form, form], "settled is settled"
        assert seen.forms | set(seen.lane_forms(first)) == {number}
        require_same(found, calm, asking.margins, bound)
        await again.leave()


async def test_two_stages_die_at_once_and_links_go_on_in_the_form_that_was_settled(
    tmp_path: Path, links: Links, seen: Seen
) -> None:
    """The first successor finds the second victim dead: its link is asked for once more, not measured anew."""
    links.are("bf16")
    async with stages_of(tmp_path, SHAPES["llama"]) as stages:
        first, middle, last = [await stages.start(*cut) for cut in CUTS]
        standbys = [await stages.start(*cut) for cut in CUTS[:2]]
        asking = stages.client(1, [(first, standbys[0]), (middle, standbys[1]), (last, None)])
        await disturbed(asking, [first, middle], links, then="f32")
        assert len(asking.changes) == 2
        assert [one.form for one in asking.lineup.links] == ["bf16", "bf16"]
        assert seen.forms == {FORM_BF16}
        await asking.leave()


@pytest.mark.parametrize(
    "name", ["gemma2", "gemma3, windows by list", "qwen3moe", "phi3", "qwen2, tied", "gpt-oss"]
)
async def test_stages_of_every_kind_of_model_say_what_the_whole_one_says_as_one_dies(
    tmp_path: Path, seen: Seen, name: str
) -> None:
    layers = SHAPES[name].layers
    cuts = ((0, 1), (1, layers - 1), (layers - 1, layers))
    async with stages_of(tmp_path, SHAPES[name]) as stages:
        first, middle, last = [await stages.start(*cut) for cut in cuts]
        standby = await stages.start(*cuts[1])
        asking = stages.client(1, [(first, None), (middle, standby), (last, None)])
        found: list[int] = []
        async for token in asking.tokens(PROMPT, COUNT):
            found.append(token)
            if len(found) == DIES_AT:
                await middle.die()
        assert asking.changes == [(middle.provider, standby.provider)]
        await asking.leave()
        whole = await whole_rows(stages, found)
        assert farthest(whole[:DIES_AT], seen.answer()[:DIES_AT]) == 0, "until then not a bit is another"
        off = farthest(whole, seen.answer())
        print(f"{name}: logits are off by {off:.3g} at most")
        assert off <= F32_BOUND
        require_clear_tokens(whole, found, F32_BOUND)
