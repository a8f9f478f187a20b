"""Frames in any cut, and bodies that a taken-over engine might send."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_worker.engine import messages
from local_worker.engine.frames import MAX_FRAME_BYTES, Failure, FrameReader, FrameRefused, Kind, frame
from local_worker.engine.messages import EngineInfo, EngineVocabulary, RowOutput

INFO = EngineInfo("llama", 2, 64, 1000, 4096, 512, 4, 1, 99, 100, 101, 1, 2, -1, True, 0, 2, 2)


@given(
    st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 9), st.binary(max_size=40))), st.integers(1, 120)
)
def test_frames_survive_any_cut(said: list[tuple[Kind, int, bytes]], step: int) -> None:
    stream = b"".join(frame(*one) for one in said)
    reader = FrameReader()
    heard = [one for at in range(0, len(stream), step) for one in reader.feed(stream[at : at + step])]
    assert heard == said


@given(st.binary(max_size=200))
def test_no_body_breaks_a_parser(body: bytes) -> None:
    for parse in (
        messages.read_rows,
        messages.read_failure,
        messages.read_tokens,
        messages.read_ready,
        messages.read_vocabulary,
        lambda data: messages.read_decode(1, data),
    ):
        with suppress(FrameRefused):
            parse(body)
            assert parse is not messages.read_ready


def test_what_is_packed_is_what_is_read() -> None:
    def body_of(data: bytes) -> bytes:
        return FrameReader().feed(data)[0][2]

    assert messages.read_ready(body_of(messages.ready_frame(INFO))) == INFO
    vocabulary = EngineVocabulary((b"a", b"", b"\xff" * 300), (4, 8, 32), (2,), 1, -1, 2, True, False, "bpe")
    packed = body_of(messages.vocabulary_frame(1, vocabulary))
    assert messages.read_vocabulary(packed) == vocabulary
    with pytest.raises(FrameRefused):
        messages.read_vocabulary(packed[:-1])
    with pytest.raises(FrameRefused):
        messages.read_vocabulary(packed + b"\x00")
    ids, logits = np.array([5, 6], np.int32), np.array([1.5, -2], np.float32)
    answer = messages.read_rows(body_of(messages.rows_frame(1, True, 9, [RowOutput(8, ids, logits, 2.25)])))
    (row,) = answer.rows
    assert (answer.last, answer.held_rows, row.position, row.logsumexp) == (True, 9, 8, 2.25)
    assert (row.ids.tolist(), row.logits.tolist()) == ([5, 6], [1.5, -2])
    failed = body_of(messages.failure_frame(1, Failure.BUSY, "ü" * 3000, 7))
    assert messages.read_failure(failed) == (Failure.BUSY, 7, "ü" * 1000)


@pytest.mark.parametrize("change", [{"layers": "2"}, {"layers": 1 << 63}, {"adds_bos": 1}, {"extra": 1}])
def test_first_words_of_the_wrong_type_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(FrameRefused):
        messages.read_ready(json.dumps(asdict(INFO) | change).encode())


@pytest.mark.parametrize("length", [0, 4, MAX_FRAME_BYTES + 1, 0xFFFFFFFF])
def test_lengths_out_of_bounds_are_refused_at_once(length: int) -> None:
    with pytest.raises(FrameRefused, match=f"{length} bytes"):
        FrameReader().feed(length.to_bytes(4, "little"))
    with pytest.raises(FrameRefused, match="above"):
        frame(Kind.TOKENIZE, 1, bytes(MAX_FRAME_BYTES))
