"""The file that speaks to llama.cpp, in this process: what it refuses, and how it bounds its batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllm_protocol.gguf.head import Value, encode_head, text, u32
from dllm_protocol.gguf.reading import read_head
from local_worker.engine import batch, llama
from local_worker.engine.errors import ModelRefused
from local_worker.engine.frames import FrameReader, Kind
from local_worker.engine.hidden import read_hidden
from local_worker.engine.messages import DecodeRequest, Hidden
from local_worker.engine.rows import BatchFailed, Rows
from local_worker.engine.scheduler import SHORT_ROWS, Scheduler
from local_worker.engine.tap import Tap
from tests.local_worker.packages.chains import CONTEXT_ROWS, load, workshop
from tests.local_worker.packages.tiny_models import SHAPES, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama") / "model.gguf", SHAPES["llama"])


def rewritten(path: Path, out: Path, changes: dict[str, Value]) -> Path:
    """The same tensors under other metadata."""
    data = path.read_bytes()
    with path.open("rb") as stream:
        head = read_head(stream.read, len(data))
    raw, _ = encode_head(dict(head.metadata) | changes, head.tensors)
    out.write_bytes(raw + data[head.data_start :])
    return out


@pytest.mark.parametrize(
    ("first", "end", "layers"),
    [
        (u32(0), u32(9), u32(9)),
        (u32(2), u32(6), u32(5)),
        (text("x"), u32(4), u32(4)),
        (u32(4), u32(4), u32(4)),
    ],
)
def test_a_file_that_lies_about_its_layers(
    model: Path, tmp_path: Path, first: Value, end: Value, layers: Value
) -> None:
    lies = {"dllm.chunk.first_layer": first, "dllm.chunk.end_layer": end, "dllm.chunk.model_layers": layers}
    with pytest.raises(ModelRefused, match=r"lie\.gguf has 4 blocks and says that it is layers"):
        load(rewritten(model, tmp_path / "lie.gguf", lies))
    only = {"dllm.chunk.end_layer": u32(4)}
    with pytest.raises(ModelRefused, match="says that it is layers"):
        load(rewritten(model, tmp_path / "lie.gguf", only))


def test_a_whole_model_that_says_it_is_all_layers(model: Path, tmp_path: Path) -> None:
    true = {
        "dllm.chunk.first_layer": u32(0),
        "dllm.chunk.end_layer": u32(4),
        "dllm.chunk.model_layers": u32(4),
    }
    loaded = load(rewritten(model, tmp_path / "whole.gguf", true))
    assert loaded.role.is_whole
    loaded.close()


def test_a_first_chunk_takes_fewer_rows_at_once_where_its_vocabulary_is_large(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = (np.arange(100, dtype=np.int32) * 7 + 5) % 500
    with workshop(model, tmp_path) as shop:
        (wide, _) = shop.chain((0, 2, 4))
        assert wide.batch_rows == 256
        monkeypatch.setattr(batch, "MAX_OUTPUT_BYTES", 4 * 512 * 20)
        narrow = load(tmp_path / "0-2.gguf")
        assert narrow.batch_rows == 20
        assert load(tmp_path / "2-4.gguf").batch_rows == 256
        assert _through_scheduler(narrow, ids).tobytes() == _in_slices(wide, ids, 20).tobytes()
        monkeypatch.setattr(batch, "MAX_OUTPUT_BYTES", 1)
        narrowest = load(tmp_path / "0-2.gguf")
        assert narrowest.batch_rows == SHORT_ROWS
        assert _through_scheduler(narrowest, ids).tobytes() == _in_slices(wide, ids, SHORT_ROWS).tobytes()


def _in_slices(loaded: llama.LlamaModel, ids: np.ndarray, rows: int) -> Hidden:
    """The same prompt by hand: batches of another shape differ in their last bits."""
    loaded.truncate(0, 0)
    found = [loaded.decode([Rows(0, at, ids[at : at + rows], 0)])[0] for at in range(0, len(ids), rows)]
    return np.concatenate(found)


def _through_scheduler(loaded: llama.LlamaModel, ids: np.ndarray) -> Hidden:
    """Hidden states of a prompt, slice by slice."""
    scheduler = Scheduler(loaded)
    assert scheduler.submit(DecodeRequest(1, 0, 0, 1, False, ids)) == []
    found = []
    position = 0
    while scheduler.busy:
        for kind, _, body in FrameReader().feed(b"".join(scheduler.step())):
            assert kind is Kind.HIDDEN
            answer = read_hidden(body)
            assert answer.first_position == position and len(answer.rows) <= loaded.batch_rows
            position += len(answer.rows)
            assert answer.held_rows == position and answer.last == (position == len(ids))
            found.append(answer.rows)
    return np.concatenate(found)


def test_slices_are_computed_by_more_threads_to_the_same_bits_and_the_log_hears_nothing_of_it(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = (np.arange(100, dtype=np.int32) * 7 + 5) % 500
    used: list[int] = []
    real = llama.llama_cpp.llama_set_n_threads

    def noted(context: llama.llama_cpp.llama_context_p, threads: int, for_batches: int) -> None:
        assert threads == for_batches
        used.append(threads)
        real(context, threads, for_batches)

    few = load(model)
    many = llama.LlamaModel(
        model, context_rows=CONTEXT_ROWS, sequences=3, threads=1, slice_threads=3, batch_rows=256
    )
    capfd.readouterr()
    monkeypatch.setattr(llama.llama_cpp, "llama_set_n_threads", noted)
    for first, rows in ((0, 64), (64, 1), (65, 1), (66, 30), (96, 4)):
        parts = [Rows(0, first, ids[first : first + rows], rows)]
        assert few.decode(parts)[0].tobytes() == many.decode(parts)[0].tobytes()
    assert used == [3, 1, 3, 1]
    assert capfd.readouterr().err == ""
    few.close()
    many.close()


def test_a_full_context_is_told_and_the_next_rows_are_right(model: Path, tmp_path: Path) -> None:
    ids = np.full(200, 300, np.int32)
    with workshop(model, tmp_path) as shop:
        (chunk, _) = shop.chain((0, 2, 4))
        (wanted,) = chunk.decode([Rows(0, 0, ids[:5], 0)])
        assert chunk.truncate(0, 0)
        chunk.decode([Rows(0, 0, ids, 0)])
        with pytest.raises(BatchFailed, match=r"no room|failed"):
            chunk.decode([Rows(0, 200, ids[: CONTEXT_ROWS - 199], 0)])
        assert chunk.truncate(0, 0)
        (again,) = chunk.decode([Rows(0, 0, ids[:5], 0)])
        assert again.tobytes() == wanted.tobytes()


def test_a_node_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = Path(llama.llama_cpp.__file__).parent / "lib"
    tap = Tap(folder, n_embd=4, rows=2, entry=None, exit_node=b"l_out-0")
    tap.expect(2)
    with pytest.raises(BatchFailed, match="the graph has no node l_out-0"):
        tap.check()
    with pytest.raises(FileNotFoundError):
        Tap(tmp_path, n_embd=4, rows=2, entry=None, exit_node=b"l_out-0")
