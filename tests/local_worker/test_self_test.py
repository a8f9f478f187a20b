"""A chunk proves itself: every split of every kind of model passes, what computes something else does not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from dllm_protocol.gguf.reading import read_head
from dllm_protocol.probing.closeness import DENSE, DENSE_LOGITS
from local_worker import self_test as room
from local_worker.engine.client import Engine
from local_worker.engine.errors import EngineBusy, EngineFull, EngineGone
from local_worker.packages.probe_piece import Probe
from local_worker.self_test import SelfTester, SelfTestFailed, SelfTestResult, self_test
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, Shape, write_model
from tests.local_worker.probed import NearEngine, Probed, ProbedModels, make_probed


@contextmanager
def near(path: Path) -> Iterator[NearEngine]:
    engine = NearEngine(path)
    try:
        yield engine
    finally:
        engine.end()


async def proven(path: Path, probe: Probe) -> SelfTestResult:
    """The self-test of a file."""
    with near(path) as engine:
        try:
            return await self_test(engine, probe)  # type: ignore[arg-type]  # as much of one as is needed
        finally:
            assert engine.open == 0


async def test_weights_that_llama_cpp_keeps_in_another_form_are_near_enough(tmp_path: Path) -> None:
    """A probe is recorded with them as the file has them; an engine that serves may have them in a faster form."""
    shape = Shape("wide", "llama", n_embd=256, n_ff=512, head=64, kind=gguf.GGMLQuantizationType.Q4_0)
    made = await asyncio.to_thread(make_probed, tmp_path / "made", shape)
    for first, end in ((0, 2), (2, 4), (0, 4)):
        path = made.chunk(first, end, tmp_path / "chunk.gguf")
        engine = await Engine.start(path, context_rows=256, sequences=1, threads=1, log_path=tmp_path / "log")
        try:
            result = await self_test(engine, made.probe(first, end))
        finally:
            await engine.close()
        assert result.worst.error <= (DENSE if end < 4 else DENSE_LOGITS).worst, (first, end)


def made_without_probe(model: Path) -> Probed:
    """A package beside its model."""
    package = model.with_name("package")
    return Probed(model, package, packed(model, package))


@pytest.mark.parametrize(
    "name", ["llama", "qwen2, tied", "gemma2", "gemma3, windows by list", "granite", "gpt-oss"]
)
async def test_every_split_passes_to_the_bit(name: str, probed_models: ProbedModels, tmp_path: Path) -> None:
    made = probed_models(name)
    for first, end in itertools.combinations(range(SHAPES[name].layers + 1), 2):
        result = await proven(made.chunk(first, end, tmp_path / "chunk.gguf"), made.probe(first, end))
        assert result.is_exact, (first, end)
        assert result.in_words() == "exact"


@pytest.mark.parametrize(("first", "end"), [(0, 2), (1, 3), (2, 4), (0, 4)])
async def test_an_engine_process_passes(
    first: int, end: int, probed_models: ProbedModels, tmp_path: Path
) -> None:
    made = probed_models("llama")
    path = made.chunk(first, end, tmp_path / "chunk.gguf")
    engine = await Engine.start(path, context_rows=1024, sequences=3, threads=1, log_path=tmp_path / "log")
    try:
        assert (await self_test(engine, made.probe(first, end))).is_exact
        assert engine.free_sequences == 3
        others = [engine.open_sequence() for _ in range(3)]
        with pytest.raises(EngineFull):
            await self_test(engine, made.probe(first, end))
        others[0].close()
        assert (await self_test(engine, made.probe(first, end))).is_exact
    finally:
        await engine.close()
    with pytest.raises(EngineGone):
        await self_test(engine, made.probe(first, end))


# --- what computes something else


def flipped(path: Path, tensor: str, number: int, bit: int) -> Path:
    """A file in which one bit of one f32 weight is the other one."""
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        head = read_head(stream.read, len(data))
    found = next(one for one in head.tensors if one.name == tensor)
    assert found.kind_name == "F32"
    at = head.data_start + found.offset + 4 * number + bit // 8
    data[at] ^= 1 << bit % 8
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("first", "end", "tensor", "bit"),
    [
        (0, 2, "blk.0.attn_norm.weight", 27),
        (0, 2, "blk.1.ffn_down.weight", 29),
        (1, 3, "blk.0.attn_q.weight", 25),
        (1, 3, "blk.1.ffn_norm.weight", 31),
        (2, 4, "blk.1.attn_output.weight", 25),
        (2, 4, "output_norm.weight", 27),
        (0, 4, "output_norm.weight", 31),
    ],
)
async def test_one_flipped_bit_that_matters_fails(
    first: int, end: int, tensor: str, bit: int, probed_models: ProbedModels, tmp_path: Path
) -> None:
    made, probe = probed_models("llama"), probed_models("llama").probe(first, end)
    path = made.chunk(first, end, tmp_path / "chunk.gguf")
    with pytest.raises(SelfTestFailed, match=f"layers {first}:{end} do not compute") as caught:
        await proven(flipped(path, tensor, 5, bit), probe)
    where = "the logits are wrong" if end == 4 else f"what leaves block {end - 1} is wrong"
    assert where in caught.value.message and "row " in caught.value.message
    assert caught.value.code == "E_SELF_TEST" and "fetch the pieces again" in caught.value.hint


async def test_a_flipped_bit_that_hardly_matters_is_not_exact(
    probed_models: ProbedModels, tmp_path: Path
) -> None:
    """As machines of other arithmetic are: near, and said to be no more than that."""
    made = probed_models("llama")
    path = made.chunk(1, 3, tmp_path / "chunk.gguf")
    result = await proven(flipped(path, "blk.0.ffn_up.weight", 77, 15), made.probe(1, 3))
    assert not result.is_exact and 0 < result.worst.error < 0.001
    assert result.in_words().startswith("within ")


async def test_other_weights_of_the_same_shape_fail_in_every_chunk(
    probed_models: ProbedModels, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model.gguf", replace(SHAPES["llama"], seed=8))
    other = await asyncio.to_thread(made_without_probe, model)
    for first, end in itertools.combinations(range(5), 2):
        path = other.chunk(first, end, tmp_path / "chunk.gguf")
        with pytest.raises(SelfTestFailed):
            await proven(path, probed_models("llama").probe(first, end))


async def test_other_layers_than_those_of_the_probe_fail(probed_models: ProbedModels, tmp_path: Path) -> None:
    made = probed_models("llama")
    path = made.chunk(1, 3, tmp_path / "chunk.gguf")
    with pytest.raises(SelfTestFailed, match="holds layers 1:3 of 4, the probe is for 2:3 of 4"):
        await proven(path, made.probe(2, 3))
    # A file that says of itself that it is another part: its numbers tell.
    probe = replace(made.probe(2, 4), first=1, end=3, leaving=made.probe(1, 3).leaving, logits=())
    with pytest.raises(SelfTestFailed, match="what leaves block 2 is wrong"):
        await proven(path, probe)
    with pytest.raises(SelfTestFailed, match="hidden states have 32 numbers, the probe's 16"):
        await proven(path, replace(made.probe(1, 3), entering=np.zeros((8, 16), np.float32)))


def _other_base(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_freq_base(500.0)


def _other_window(writer: gguf.GGUFWriter) -> None:
    writer.add_sliding_window(2)
    writer.add_sliding_window_pattern([True, False, False, True, True])


@pytest.mark.parametrize(
    ("name", "more"),
    [("llama", _other_base), ("gemma3, windows by list", _other_window)],
    ids=["rotary", "window"],
)
async def test_another_setting_of_the_same_weights_fails(
    name: str, more: Callable[[gguf.GGUFWriter], None], probed_models: ProbedModels, tmp_path: Path
) -> None:
    """Rotary positions, windows: what a chunk's metadata say, and its weights do not."""
    made = probed_models(name)
    model = write_model(tmp_path / "model.gguf", replace(SHAPES[name], more=more))
    other = await asyncio.to_thread(made_without_probe, model)
    layers = made.manifest.layers
    assert made.manifest.pieces[1 : layers + 3] == other.manifest.pieces[1:]  # all but the header
    for first, end in ((0, 2), (layers - 2, layers - 1), (0, layers)):
        path = other.chunk(first, end, tmp_path / "chunk.gguf")
        with pytest.raises(SelfTestFailed):
            await proven(path, made.probe(first, end))


async def test_experts_are_given_room_for_another_choice_and_no_more(
    probed_models: ProbedModels, tmp_path: Path
) -> None:
    made = probed_models("llama, experts")
    path = made.chunk(1, 2, tmp_path / "chunk.gguf")
    probe = made.probe(1, 2)
    assert probe.leaving is not None and probe.entering is not None
    one_row = probe.leaving.copy()
    one_row[5] += 0.5 * (one_row[5] - probe.entering[5])
    result = await proven(path, replace(probe, leaving=one_row))
    assert not result.is_exact and result.worst.row == 5
    with pytest.raises(SelfTestFailed, match="row 5"):
        await proven(path, replace(probe, leaving=one_row, is_routed=False))
    with pytest.raises(SelfTestFailed, match="row 0"):
        await proven(path, replace(probe, leaving=probe.entering))


# --- again and again


class Clock:
    """Time that passes while somebody sleeps; ends the test after a while."""

    def __init__(self, sleeps: int) -> None:
        self.slept: list[float] = []
        self._left = sleeps

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._left -= 1
        if self._left < 0:
            raise TimeoutError


async def test_it_is_repeated_while_nobody_waits(probed_models: ProbedModels, tmp_path: Path) -> None:
    made, clock = probed_models("llama"), Clock(sleeps=2)
    with near(made.chunk(1, 2, tmp_path / "chunk.gguf")) as engine:
        tester = SelfTester(
            made.probe(1, 2),
            engine=lambda: engine,  # type: ignore[arg-type, return-value]  # as much of one as is needed
            is_idle=lambda: True,
            make_room=lambda: pytest.fail("room was made"),
            sleep=clock.sleep,
        )
        assert tester.in_words() == ""
        with pytest.raises(TimeoutError):
            await tester.keep()
    assert clock.slept == [room.EVERY_S] * 3
    assert (tester.passed, tester.in_words()) == (2, "exact")


async def test_a_busy_worker_puts_it_off_but_not_for_ever(probed_models: ProbedModels) -> None:
    made, clock = probed_models("llama"), Clock(sleeps=10_000)
    asked: list[float] = []
    rooms: list[float] = []

    def engine() -> Engine:
        asked.append(sum(clock.slept))
        if len(asked) == 3:
            raise TimeoutError
        if len(asked) == 1:
            raise EngineGone("between two lives")
        return None  # type: ignore[return-value]  # nobody asks it anything

    def make_room() -> None:
        rooms.append(sum(clock.slept))
        raise EngineBusy("all are in the middle of an answer")

    tester = SelfTester(
        made.probe(1, 2), engine=engine, is_idle=lambda: False, make_room=make_room, sleep=clock.sleep
    )
    with pytest.raises(TimeoutError):
        await tester.keep()
    assert asked == [room.LATEST_S, room.LATEST_S + room.EVERY_S, room.LATEST_S + 2 * room.EVERY_S]
    assert (rooms, tester.passed) == ([asked[1]], 0)


async def test_a_card_that_goes_bad_is_noticed(probed_models: ProbedModels, tmp_path: Path) -> None:
    made, clock = probed_models("llama"), Clock(sleeps=5)
    probe = made.probe(1, 2)
    well, ill = (made.chunk(1, 2, tmp_path / name) for name in ("well.gguf", "ill.gguf"))
    with near(well) as good, near(flipped(ill, "blk.0.attn_norm.weight", 3, 27)) as bad:
        engines = iter([good, good, bad])
        tester = SelfTester(
            probe,
            engine=lambda: next(engines),  # type: ignore[arg-type, return-value]  # as much of one as is needed
            is_idle=lambda: True,
            make_room=lambda: pytest.fail("room was made"),
            sleep=clock.sleep,
        )
        with pytest.raises(SelfTestFailed, match="what leaves block 1 is wrong"):
            await tester.keep()
    assert (tester.passed, len(clock.slept)) == (2, 3)


async def test_a_model_without_a_probe_has_nothing_to_prove() -> None:
    tester = SelfTester(
        None, engine=lambda: pytest.fail("asked"), is_idle=lambda: True, make_room=lambda: None
    )
    await tester.keep()
    assert (tester.in_words(), tester.passed) == ("no probe", 0)
